"""A torch optimizer's file has the groups and settings that its moments were trained in."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from convert_cases import WRITERS, checkpoint, write_run  # noqa: E402
from messages import says  # noqa: E402
from torch_nn_cases import CASES  # noqa: E402

import torch_transformer  # noqa: E402
import twinformer  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

STEPS, RATE, DECAY = 3, 1e-4, 0.01
RUN = {"peak_lr": 5e-5, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_eps": 1e-7, "weight_decay": 0.0}
THREE = {"vectors": (3e-3, 0.0), "decoder": (2e-3, 0.3), "encoder": (1e-3, 0.2)}


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "max_position_embeddings": 32,
    }  # fmt: skip
    return transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes))


def learn(optimizer) -> None:
    """Steps with gradients that differ between parameters of one shape."""
    torch.manual_seed(1)
    for _ in range(STEPS):
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def two_groups(model):
    """What decays, and what does not, as most people's loops have it."""
    parameters = list(model.parameters())
    decays = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY}
    others = {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0}
    return torch.optim.AdamW([decays, others], lr=RATE)


def one_group(model):
    return torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)


def kind_of(name: str, parameter) -> str:
    if parameter.ndim == 1:
        return "vectors"
    return "decoder" if "decoder" in name else "encoder"


def three_groups(model):
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [x for x in named if kind_of(*x) == kind], "lr": lr, "weight_decay": decay}
        for kind, (lr, decay) in THREE.items()
    ]
    return torch.optim.AdamW(groups)


def user(model, place, optimizer_of):
    """The library's model and the optimizer that trained it."""
    optimizer = optimizer_of(model)
    learn(optimizer)
    model.config.save_pretrained(place)
    torch.save(model.state_dict(), place / "pytorch_model.bin")
    torch.save(optimizer.state_dict(), place / "optimizer.pt")
    return place


def converted(source, to, name, **options):
    container = {"container": "pt"} if to in ("torch", "bart", "torch-nn") else {}
    return twinformer.convert(source, source.parent / name, to=to, **container, **options)


def groups_in(done) -> list:
    return torch.load(done.folder / "optimizer.pt", weights_only=True)["param_groups"]


def settings_in(done) -> list[tuple]:
    return [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups_in(done)]


def told(done) -> list[str]:
    return [note for note in done.notes if note.startswith("optimizer.pt")]


def trained_in_torch(folder):
    """A folder of the PyTorch twin that its user trained on in three groups, as the page says."""
    twin = torch_transformer.load(folder)
    optimizer = three_groups(twin)
    learn(optimizer)
    torch.save(twin.state_dict(), folder / "model.pt")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    (folder / "conversion.json").unlink()
    return folder


def trained_in_jax(folder, make):
    """A folder of the Flax twin that its user trained on with optax, as many steps as before."""
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    import orbax.checkpoint

    optimizer = make(optax)
    place = folder / "orbax"
    with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
        params = checkpointer.restore(place)["params"]
    state = jax.jit(optimizer.init)(params)
    for _ in range(STEPS):
        gradients = jax.tree.map(lambda x: np.full(x.shape, 0.01, x.dtype), params)
        updates, state = jax.jit(optimizer.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
    shutil.rmtree(place)
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(place, {"params": params, "opt_state": state})
    (folder / "conversion.json").unlink()
    return folder


def plain_adamw(optax):
    return optax.adamw(5e-3, weight_decay=0.5)


def run_of(folder):
    """A run of ours that started from a folder that was converted."""
    config = TransformerConfig.load(folder / "config.json")
    place = folder.parent / "run"
    step = place / "checkpoints" / "step_00000010"
    step.mkdir(parents=True)
    WRITERS["torch"](step, checkpoint(config, count=10))
    (step / "progress.json").write_text("{}")
    (place / "settings.json").write_text(json.dumps({"backend": "torch", "settings": RUN}))
    for name in ("config.json", "origin.json"):
        shutil.copy(folder / name, place)
    return place


@pytest.mark.parametrize("way", [["flax"], ["torch"], ["flax", "torch", "flax"]])
@pytest.mark.parametrize("optimizer_of", [one_group, two_groups])
def test_nothing_changes_there_and_back(optimizer_of, way, model, tmp_path):
    source = user(model, tmp_path / "in", optimizer_of)
    before = torch.load(source / "optimizer.pt", weights_only=True)
    for number, to in enumerate(way):
        source = converted(source, to, f"{number}").folder
    done = converted(source, "bart", "back")
    after = torch.load(done.folder / "optimizer.pt", weights_only=True)
    for group in after["param_groups"]:
        del group["param_names"]
    assert after["param_groups"] == before["param_groups"]
    for number, entry in before["state"].items():
        assert torch.equal(after["state"][number]["exp_avg"], entry["exp_avg"])
    assert told(done) == []


@pytest.mark.parametrize("way", [[], ["flax"], ["torch"]])
def test_a_run_of_ours_has_its_own_settings(way, model, tmp_path):
    """Those of the import are of before, which a run that starts from it does not go on with."""
    source = run_of(converted(user(model, tmp_path / "in", two_groups), "torch", "own").folder)
    for to in way:
        source = converted(source, to, to).folder
    done = converted(source, "bart", "back")
    before = torch.load(tmp_path / "in" / "optimizer.pt", weights_only=True)["param_groups"]
    sizes = [len(group["params"]) for group in before]
    assert settings_in(done) == [(size, 5e-5, 0.0) for size in sizes]
    assert {group["betas"] for group in groups_in(done)} == {(0.8, 0.9)}
    says(told(done), sizes[0], f"and {sizes[1]} parameters", "param_names")
    if way != ["torch"]:  # whose optimizer.pt says lr itself
        says(told(done), "lr is the run's peak_lr", "5e-05")


@pytest.mark.parametrize("way", [[], ["flax"], ["flax", "torch"]])
@pytest.mark.parametrize("optimizer_of", [one_group, two_groups])
def test_groups_that_the_twin_was_trained_in(optimizer_of, way, model, tmp_path):
    """A group of before with parameters of several settings is divided, each in the order there."""
    source = user(model, tmp_path / "in", optimizer_of)
    source = trained_in_torch(converted(source, "torch", "own").folder)
    for number, to in enumerate(way):
        source = converted(source, to, f"{number}").folder
    done = converted(source, "bart", "back")
    named = dict(model.named_parameters())
    for group in groups_in(done):
        (kind,) = {kind_of(name, named[name]) for name in group["param_names"]}
        assert (group["lr"], group["weight_decay"]) == THREE[kind]
        assert group["param_names"] == [n for n in named if n in set(group["param_names"])]
    sizes = [len(group["params"]) for group in groups_in(done)]
    assert len(sizes) == 3 and sum(sizes) == len(named)
    says(
        told(done), "settings are the source's", f"groups of {sizes[0]}, {sizes[1]} and {sizes[2]}"
    )


def test_what_came_back_goes_on_as_the_twin_does(model, tmp_path):
    own = trained_in_torch(
        converted(user(model, tmp_path / "in", one_group), "torch", "own").folder
    )
    done = converted(own, "bart", "back")
    state = torch.load(done.folder / "optimizer.pt", weights_only=True)
    again = transformers.BartForConditionalGeneration.from_pretrained(done.folder)
    named = dict(again.named_parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [named[name] for name in group["param_names"]]} for group in groups_in(done)]
    )
    optimizer.load_state_dict(state)
    twin = torch_transformer.load(own)
    there = three_groups(twin)
    there.load_state_dict(torch.load(own / "optimizer.pt", weights_only=True))
    for parameters in (again.parameters(), twin.parameters()):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.1)
    optimizer.step()
    there.step()
    ours = twin.state_dict()["decoder.dec_layers.0.ffn.fc1.weight"]
    assert torch.equal(named["model.decoder.layers.0.fc1.weight"], ours)
    ours = twin.state_dict()["encoder.enc_layers.0.ffn.fc2.bias"]
    assert torch.equal(named["model.encoder.layers.0.fc2.bias"], ours)


class TestUnknown:
    """The state of plain optax.adamw has no settings: no others are called those of training."""

    @pytest.fixture
    def flax(self, model, tmp_path):
        source = user(model, tmp_path / "in", two_groups)
        return trained_in_jax(converted(source, "flax", "flax").folder, plain_adamw)

    @pytest.mark.parametrize("to", ["torch", "bart"])
    @pytest.mark.parametrize("again", [False, True], ids=["at once", "converted once more"])
    def test_settings_of_the_import_are_called_so(self, again, to, flax):
        source = converted(flax, "flax", "again").folder if again else flax
        done = converted(source, to, "back")
        sizes = [len(group["params"]) for group in groups_in(done)]
        shown = [f"{sizes[0]} parameters: lr {RATE}, weight_decay {DECAY}"]
        says(told(done), "not known", "the import", *shown, "set your lr and weight_decay")
        assert not any("source's" in note for note in told(done))

    def test_a_file_that_was_written_of_them_is_no_better(self, flax):
        """Until its user sets what it was trained with."""
        source = converted(flax, "torch", "own").folder
        done = converted(source, "bart", "back")
        says(told(done), "not known", "the import", f"lr {RATE}, weight_decay {DECAY}")
        content = torch.load(source / "optimizer.pt", weights_only=True)
        for group in content["param_groups"]:
            group |= {"lr": 5e-3, "weight_decay": 0.5}
        torch.save(content, source / "optimizer.pt")
        done = converted(source, "bart", "mended")
        assert {found[1:] for found in settings_in(done)} == {(5e-3, 0.5)}
        says(told(done), "settings are the source's")

    def test_those_of_a_run_before(self, tmp_path):
        run = write_run(tmp_path / "run", "flax")
        (run / "settings.json").write_text(json.dumps({"backend": "flax", "settings": RUN}))
        source = converted(run, "flax", "flax").folder
        says(told(converted(source, "torch", "unchanged")), "lr is the run's peak_lr", "5e-05")
        source = converted(trained_in_jax(source, plain_adamw), "flax", "again").folder
        done = converted(source, "torch", "back")
        says(told(done), "not known", "settings.json", "lr 5e-05", "set your lr and weight_decay")
        assert not any("peak_lr" in note for note in told(done))

    def test_those_that_were_not_compared(self, model, tmp_path):
        """conversion.json lies there still, and is of before."""
        source = converted(user(model, tmp_path / "in", two_groups), "flax", "flax").folder
        ledger = (source / "conversion.json").read_bytes()
        trained_in_jax(source, plain_adamw)
        (source / "conversion.json").write_bytes(ledger)
        done = converted(source, "bart", "back", verify=False)
        says(told(done), "not known", "conversion.json", f"lr {RATE}")

    def test_what_the_state_says_is_written(self, model, tmp_path):
        source = user(model, tmp_path / "in", two_groups)
        trained_in_jax(
            converted(source, "flax", "flax").folder,
            lambda optax: optax.inject_hyperparams(optax.adamw)(
                optax.linear_schedule(4e-3, 0.0, 100), weight_decay=0.5
            ),
        )
        done = converted(tmp_path / "flax", "bart", "back")
        last = float(np.float32(4e-3 * (1 - (STEPS - 1) / 100)))
        for _, rate, decay in settings_in(done):
            assert rate == pytest.approx(last, rel=1e-6) and decay == 0.5
        says(done.notes, "opt_state.hyperparams", "lr is that of the last step", "schedule")
        assert not any("not known" in note for note in told(done))


@pytest.mark.parametrize("way", [[], ["flax"]])
def test_own_groups_win_over_the_settings_of_a_run_before(way, tmp_path):
    run = write_run(tmp_path / "run", "torch")
    (run / "settings.json").write_text(json.dumps({"backend": "torch", "settings": RUN}))
    source = trained_in_torch(converted(run, "torch", "own").folder)
    for to in way:
        source = converted(source, to, to).folder
    done = converted(source, "torch", "back")
    assert [found[1:] for found in settings_in(done)] == list(THREE.values())
    says(told(done), "groups and settings are the source's")


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_a_parameter_that_was_trained_in_parts(tmp_path):
    """torch.nn keeps queries, keys and values in one parameter, which has one rate there."""
    case = CASES["pre gelu"]
    module = case.module()
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE)
    learn(optimizer)
    states = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(states, tmp_path / "user.pt")
    source = converted(tmp_path / "user.pt", "torch", "own", fields=case.flags()).folder
    content = torch.load(source / "optimizer.pt", weights_only=True)
    (group,) = content["param_groups"]
    queries = [n for n, name in enumerate(group["param_names"]) if "fcQ" in name]
    parts = [[n for n in group["params"] if (n in queries) == wanted] for wanted in (False, True)]
    content["param_groups"] = [
        group | {"params": part, "lr": lr, "param_names": [group["param_names"][n] for n in part]}
        for part, lr in zip(parts, (RATE, 0.5), strict=True)
    ]
    torch.save(content, source / "optimizer.pt")
    (source / "conversion.json").unlink()
    done = converted(source, "torch-nn", "back")
    says(told(done), "in parts with several settings", "in_proj_weight")
    for group in groups_in(done):
        assert (group["lr"] == 0.5) == any("in_proj" in name for name in group["param_names"])


def test_damaged_settings_of_a_run_say_nothing(tmp_path):
    """The file is left out, which a note tells, and the weights are converted."""
    run = write_run(tmp_path / "run", "torch")
    (run / "settings.json").write_text("{damaged")
    done = converted(run, "torch", "own")
    says(done.notes, "settings.json is left out", "damaged")
    says(told(done), "does not say lr", "defaults", "lr 0.001")
    assert converted(run, "flax", "flax").optimizer is not None
