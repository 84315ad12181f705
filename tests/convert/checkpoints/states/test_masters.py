"""Float32 masters of weights that are read in half precision are told of, wherever they lie."""

import pytest
import torch
from convert_cases import CONFIG
from messages import says

import twinformer
from convert.checkpoints import load_weights_of
from transformer_spec import initial_weights, trained_names

WEIGHTS = {n: torch.from_numpy(a) for n, a in initial_weights(CONFIG, seed=0).items()}
TRAINED = [WEIGHTS[name] for name in trained_names(CONFIG)]
NUMBERS = sum(weight.numel() for weight in TRAINED)
HALF = {name: weight.half() for name, weight in WEIGHTS.items()}


def flat():
    return torch.nn.Parameter(torch._utils._flatten_dense_tensors(TRAINED))  # as DeepSpeed does


def stepped(*parameters):
    """The state of AdamW over float32 masters after a step."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(p.detach()) for p in parameters])
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def deepspeed(**masters):
    inner = {"dynamic_loss_scale": True, "cur_scale": 65536.0, "clip_grad": 0.0}
    inner |= {"optimizer_state_dict": stepped(flat()), **masters}
    return {"module": HALF, "optimizer": inner, "ds_version": "0.15.0", "ds_config": {}}


def megatron():
    inner = {"optimizer": stepped(*TRAINED), "fp32_from_fp16_params": [TRAINED]}
    return {"model": HALF, "optimizer": inner, "iteration": 3}


def apex():
    inner = {"optimizer_state_dict": stepped(*TRAINED), "fp32_from_fp16": [TRAINED]}
    return {"model": HALF, "optimizer": inner, "epoch": 1}


CASES = {
    "DeepSpeed's FP16_Optimizer": (
        lambda: deepspeed(fp32_groups_flat=[flat()]), "optimizer.fp32_groups_flat"
    ),
    "DeepSpeed's FP16_UnfusedOptimizer": (
        lambda: deepspeed(fp32_groups=[TRAINED]), "optimizer.fp32_groups"
    ),
    "Megatron": (megatron, "optimizer.fp32_from_fp16_params"),
    "apex's FP16_Optimizer": (apex, "optimizer.fp32_from_fp16"),
    "a loop with amp O2": (lambda: {"model": HALF, "master_params": TRAINED}, "master_params"),
}  # fmt: skip


def told(content, folder, name="mp_rank_00_model_states.pt"):
    folder.mkdir(exist_ok=True)
    CONFIG.save(folder / "config.json")
    torch.save(content, folder / name)
    return twinformer.convert(folder, folder.with_name("converted"), to="torch")


@pytest.mark.parametrize("case", CASES)
def test_masters_are_named(case, tmp_path):
    content, place = CASES[case]
    done = told(content(), tmp_path / "a")
    notes = [note for note in done.notes if "float32 masters" in note]
    assert len(notes) == 1
    says(notes, f"{place} holds float32 masters", f"{NUMBERS:,} numbers", "not read", "float16")
    _, weights = load_weights_of(done.folder)
    assert all((weights[name] == half.numpy()).all() for name, half in HALF.items())


def test_weights_in_float32_need_no_masters(tmp_path):
    content = deepspeed(fp32_groups_flat=[flat()]) | {"module": WEIGHTS}
    assert "float32 masters" not in " ".join(told(content, tmp_path / "a").notes)


def test_masters_in_the_files_of_zero_beside(tmp_path):
    """ZeRO 1 and 2 and BF16_Optimizer: every process has a part of them in a file of its own."""
    bfloat16 = {name: weight.bfloat16() for name, weight in WEIGHTS.items()}
    content = {"module": bfloat16, "optimizer": None, "ds_version": "0.15.0"}
    part = {"optimizer_state_dict": {"single_partition_of_fp32_groups": [flat()]}}
    (tmp_path / "a").mkdir()
    torch.save(part, tmp_path / "a/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
    notes = [note for note in told(content, tmp_path / "a").notes if "float32 masters" in note]
    says(notes, "bfloat16", "_optim_states.pt beside", "not read", "zero_to_fp32.py")
    assert len(notes) == 1
