"""Optimizers of torch with Adam's words for other numbers: left out, or carried with a note."""

import pytest
import torch
from convert_cases import CONFIG
from messages import saying, says

import twinformer
from convert.checkpoints import load_weights_of
from convert.checkpoints.optimizers.adam import check_adam
from transformer_spec import UserError, initial_weights, trained_names

WEIGHTS = initial_weights(CONFIG, seed=0)
COUNT = len(trained_names(CONFIG))


def stepped(kind, **options):
    """The state of an optimizer of torch over the twin's parameters after three steps."""
    named = {n: torch.nn.Parameter(torch.tensor(WEIGHTS[n])) for n in trained_names(CONFIG)}
    optimizer = kind(list(named.values()), **options)
    for _ in range(3):
        for parameter in named.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return optimizer.state_dict()


def with_parts(entry=None, **settings):
    """AdamW's state with what other libraries' optimizers put beside Adam's words."""
    state = stepped(torch.optim.AdamW, lr=1.0)
    for held in state["state"].values():
        held |= entry(held["exp_avg"]) if entry else {}
    for group in state["param_groups"]:
        group |= settings
    return state


def prodigy():
    """As prodigyopt 1.1 writes it."""
    more = {"d": 1e-6, "d0": 1e-6, "d_max": 1e-6, "d_coef": 1.0, "k": 3, "beta3": None}
    more |= {"growth_rate": float("inf"), "use_bias_correction": False, "decouple": True}
    return with_parts(lambda p: {"s": p.flatten().clone(), "p0": p.flatten().clone()}, **more)


def soap():
    """As the authors' SOAP writes it."""

    def entry(moment):
        sides = [torch.eye(size) for size in moment.shape]
        return {"GG": sides, "Q": sides, "precondition_frequency": 10, "shampoo_beta": 0.95}

    return with_parts(entry, shampoo_beta=-1, precondition_1d=False, merge_dims=False)


REFUSED = {
    "Prodigy": (prodigy, ["parameter 0", "s, p0", "not Adam's"]),
    "SOAP": (soap, ["parameter 0", "GG, Q, precondition_frequency", "not Adam's"]),
    "MARS": (lambda: with_parts(lambda p: {"last_grad": p}), ["last_grad", "not Adam's"]),
    "NAdam": (lambda: stepped(torch.optim.NAdam), ["mu_product", "not Adam's"]),
    "Adamax": (lambda: stepped(torch.optim.Adamax), ["no exp_avg_sq"]),
    "amsgrad": (lambda: stepped(torch.optim.AdamW, amsgrad=True), ["max_exp_avg_sq"]),
    "a scale in its groups": (lambda: with_parts(d=1e-6, d_coef=1.0), ["group 0 has d", "scaled"]),
    "FusedLAMB without averages": (
        lambda: with_parts(grad_averaging=False, max_grad_norm=1.0), ["grad_averaging", "no mean"]
    ),
}  # fmt: skip


def converted(state, folder):
    folder.mkdir()
    CONFIG.save(folder / "config.json")
    weights = {name: torch.from_numpy(array) for name, array in WEIGHTS.items()}
    torch.save({"model": weights, "optimizer": state}, folder / "model.pt")
    return twinformer.convert(folder, folder.with_name("converted"), to="torch", container="pt")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_adam_s_is_left_out(kind, tmp_path):
    make, words = REFUSED[kind]
    done = converted(make(), tmp_path / "a")
    assert done.optimizer is None and not (done.folder / "optimizer.pt").exists()
    told = [note for note in done.notes if "optimizer is left out" in note]
    says(told, "weights are not", "not that of Adam or AdamW", *words)
    assert len(told) == 1
    _, weights = load_weights_of(done.folder)
    assert all((array == WEIGHTS[name]).all() for name, array in weights.items())


def test_many_of_a_kind_are_one_line():
    with pytest.raises(UserError, check=saying(f"and {COUNT - 3} more have what is not")) as raised:
        check_adam(soap(), "optimizer.pt")
    assert len(str(raised.value).splitlines()) < 8


NOTED = {
    "RAdam": (lambda: stepped(torch.optim.RAdam), ["torch.optim.RAdam", "Adam's moments"]),
    "another decay": (
        lambda: with_parts(decouple=True),
        ["decouple", "taken as Adam's", "--no-optimizer"],
    ),
    "without a correction": (lambda: with_parts(bias_correction=False), ["bias_correction"]),
}


@pytest.mark.parametrize("kind", NOTED)
def test_what_cannot_be_told_by_its_moments_is_noted(kind, tmp_path):
    make, words = NOTED[kind]
    done = converted(make(), tmp_path / "a")
    assert done.optimizer.steps == 3
    told = [note for note in done.notes if note.startswith("the optimizer's groups")]
    says(told, *words)
    assert len(told) == 1


def scheduled(**options):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=9)
    return {k: v for k, v in optimizer.param_groups[0].items() if k != "params"} | options


KNOWN = {
    "Adam": lambda: stepped(torch.optim.Adam),
    "foreach": lambda: stepped(torch.optim.AdamW, foreach=True, capturable=False),
    "fused": lambda: stepped(torch.optim.AdamW, fused=True),
    "a schedule's and a loop's settings": lambda: with_parts(**scheduled(name="all", lr_scale=0.5)),
    "FusedAdam of DeepSpeed": lambda: with_parts(bias_correction=True, step=3),
    "an empty place": lambda: with_parts(lambda _: {"max_exp_avg_sq": None}),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_adam_s_own_words_need_no_note(kind, tmp_path):
    done = converted(KNOWN[kind](), tmp_path / "a")
    assert done.optimizer.steps == 3
    assert not [note for note in done.notes if note.startswith("the optimizer's groups")]
