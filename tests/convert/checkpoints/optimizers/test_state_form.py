"""What lies where a torch optimizer's state belongs may be anything: the weights are read."""

import numpy as np
import pytest
import torch
from convert_cases import CONFIG
from edited_trees import JSON, edited
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages import says

import twinformer
from convert.checkpoints import load_weights_of
from convert.conversion.inspection import inspect
from convert.conversion.request import SourceRequest
from transformer_spec import initial_weights, trained_names

WEIGHTS = initial_weights(CONFIG, seed=0)
NAMED = ["decoder.embedding.weight", "encoder.embedding.weight", "encoder.pos_embedding.weight"]


def state_of(names: list[str], named: bool = False) -> dict:
    """What AdamW of these parameters has after three steps."""
    parameters = [(n, torch.nn.Parameter(torch.from_numpy(WEIGHTS[n].copy()))) for n in names]
    chosen = parameters if named else [parameter for _, parameter in parameters]
    optimizer = torch.optim.AdamW(chosen, lr=3e-5, betas=(0.9, 0.98))
    for _ in range(3):
        for _, parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return optimizer.state_dict()


STATES = [state_of(NAMED, named=True), state_of(trained_names(CONFIG))]


def converted(state, folder, **options):
    """The folder as it is converted, weights and the optimizer in files of their own."""
    folder.mkdir()
    CONFIG.save(folder / "config.json")
    torch.save({n: torch.from_numpy(a) for n, a in WEIGHTS.items()}, folder / "model.pt")
    torch.save(state, folder / "optimizer.pt")
    return twinformer.convert(folder, folder.with_name("converted"), **options)


def assert_weights(done) -> None:
    _, weights = load_weights_of(done.folder)
    assert weights.keys() == WEIGHTS.keys()
    assert all(np.array_equal(array, WEIGHTS[name]) for name, array in weights.items())


def each(key, value):
    """Another value in every parameter's entry, or what a function makes of the one there."""

    def change(state):
        for entry in state["state"].values():
            entry[key] = value(entry[key]) if callable(value) else value

    return change


def group(key, value):
    return lambda state: state["param_groups"][0].update({key: value})


def top(**parts):
    return lambda state: state.update(parts)


def keyed_by_text(state):
    state["state"] = {str(index): entry for index, entry in state["state"].items()}


MANY = len(trained_names(CONFIG)) - 1
FORMS = {
    "no moment": (each("exp_avg", None), "parameter 0", "None as exp_avg", f"{MANY} more"),
    "a number": (each("exp_avg", 1.0), "parameter 0", "float as exp_avg", f"{MANY} more"),
    "a list": (each("exp_avg_sq", [1.0]), "parameter 0", "list as exp_avg_sq", f"{MANY} more"),
    "sparse": (each("exp_avg", lambda x: x.to_sparse()), "parameter 0", "exp_avg", "no array"),
    "integers": (each("exp_avg", lambda x: x.int()), "parameter 0", "exp_avg of int32"),
    "another shape": (each("exp_avg_sq", torch.ones(3)), "exp_avg_sq of [3]", f"{MANY} more"),
    "a step of text": (each("step", "7"), "parameter 0", "step", f"{MANY} more"),
    "no step": (each("step", None), "step None", "no number of steps"),
    "endless steps": (each("step", float("inf")), "step inf"),
    "a half step": (each("step", 7.5), "step 7.5"),
    "more steps than optax counts": (each("step", 3e9), "step 3e+09"),
    "two steps": (each("step", torch.ones(2)), "step", "[2]", "no number of steps"),
    "two rates": (group("lr", torch.zeros(2)), "group 0", "lr", "[2]"),
    "a rate of text": (group("lr", "fast"), "group 0", "lr", "no number"),
    "no betas": (group("betas", None), "group 0", "betas None"),
    "no list of parameters": (group("params", None), "group 0", "params"),
    "no names": (group("param_names", None), "group 0", "param_names"),
    "a parameter twice": (group("params", [0, 0]), "0", "more than once"),
    "a group without parameters": (top(param_groups=[{"lr": 1}]), "group 0", "params"),
    "no groups": (top(param_groups=None), "param_groups", "no list of dicts"),
    "no state": (top(state=None), "state is None"),
    "a list of states": (top(state=[{}]), "state is list"),
    "keys of text": (keyed_by_text, "no group has", f"and {MANY - 11} more"),
    "a stranger": (lambda state: state["state"].update({99: state["state"][0]}), "no group has 99"),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_what_is_no_state_is_left_out_and_told(form, tmp_path) -> None:
    change, *told = FORMS[form]
    state = state_of(trained_names(CONFIG))
    change(state)
    done = converted(state, tmp_path / "a", to="flax")
    assert done.optimizer is None
    says(done.notes, "optimizer is left out", "weights are not", *told)
    assert_weights(done)
    says(inspect(SourceRequest(tmp_path / "a")).notes, "optimizer is left out", *told)


@pytest.mark.parametrize("step", [torch.tensor([3.0]), torch.tensor([[3]]), np.ones(1) * 3, 3])
def test_a_step_of_any_shape_is_its_number(step, tmp_path) -> None:
    """torch 1.12 to 2.0 kept steps of shape [1] where they were captured or fused."""
    state = state_of(trained_names(CONFIG))
    each("step", step)(state)
    done = converted(state, tmp_path / "a", to="torch", container="pt")
    assert done.optimizer.steps == 3
    written = torch.load(done.folder / "optimizer.pt", weights_only=True)
    assert {float(entry["step"]) for entry in written["state"].values()} == {3.0}


def test_settings_that_are_tensors_or_objects(tmp_path) -> None:
    state = state_of(NAMED, named=True)
    changes = {"lr": torch.tensor(3e-5, dtype=torch.float64), "where": slice(3), "initial_lr": 1.0}
    state["param_groups"][0] |= changes | {"betas": (torch.tensor([0.5]), 0.98)}
    done = converted(state, tmp_path / "a", to="torch", container="pt")
    says(done.notes, "neither numbers nor texts", "where")
    count = len(trained_names(CONFIG))
    says(done.notes, "optimizer.pt", count - 3, f"of {count} parameters", "in no one group")
    written = torch.load(done.folder / "optimizer.pt", weights_only=True)["param_groups"][0]
    assert (written["lr"], written["betas"], written["initial_lr"]) == (3e-5, (0.5, 0.98), 1.0)
    assert "where" not in written


ODD = JSON | st.sampled_from([
    torch.tensor(1.0), torch.ones(1), torch.ones(2), torch.ones(2, 3), torch.zeros(0),
    torch.tensor(7), torch.tensor(float("nan")), torch.ones(6).bfloat16(), torch.ones(2).bool(),
    np.float32(3), np.ones(2, dtype=bool), 1j, (), slice(2), torch.float32,
    torch.eye(2).to_sparse(),
])  # fmt: skip


@settings(
    max_examples=150, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_form(tmp_path_factory, data) -> None:
    state = data.draw(st.sampled_from(STATES).flatmap(lambda state: edited(state, ODD)))
    to, container = data.draw(st.sampled_from([("torch", "pt"), ("flax", "safetensors")]))
    if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
        state = {"state": {}, "param_groups": []} | (state if isinstance(state, dict) else {})
    place = tmp_path_factory.mktemp("form") / "a"
    assert_weights(converted(state, place, to=to, container=container))
