"""Adafactor's state: training goes on in the other library as it would have in its own."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from messages import says

from convert import OptaxAdafactor, adafactor_to_optax, adafactor_to_torch
from convert.checkpoints.optimizers.adam import check_adam
from transformer_spec import UserError, canonical_name, to_flax, to_torch

RATE = 1e-2
LAYER = "encoder.enc_layers.0."
SHAPES = {
    f"{LAYER}ffn.fc1.kernel": (130, 150),
    f"{LAYER}ffn.fc2.kernel": (150, 130),
    f"{LAYER}multiheadattention.fcQ.kernel": (128, 128),
    "encoder.embedding.embedding": (160, 130),
    "encoder.final_norm.scale": (130,),
}


def arrays(seed):
    draw = np.random.default_rng(seed)
    return {name: draw.normal(0, 0.1, shape) for name, shape in SHAPES.items()}


def with_optax(weights, gradients, state=None):
    """(weights, state) after a step for each of some gradients."""
    optimizer = optax.adafactor(RATE)
    weights = {name: jnp.asarray(array) for name, array in weights.items()}
    if state is None:
        state = optimizer.init(weights)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
    return {name: np.asarray(array) for name, array in weights.items()}, state


def factored(state):
    """Of a chain of states, the one with the moments."""
    return next(part for part in state if hasattr(part, "v_row"))


def as_ours(state):
    parts = {slot: {n: np.asarray(a) for n, a in getattr(state, slot).items()}
             for slot in ("v_row", "v_col", "v")}  # fmt: skip
    return OptaxAdafactor(int(state.count), **parts)


def of_torch(weights):
    """An Adafactor of torch over weights of the PyTorch twin, as the same formula has it."""
    named = {to_torch(n, a)[0]: torch.nn.Parameter(torch.tensor(to_torch(n, a)[1]))
             for n, a in weights.items()}  # fmt: skip
    optimizer = torch.optim.Adafactor(named.values(), lr=RATE, weight_decay=0.0, eps=(1e-30, 1e-3))
    return named, optimizer


def step(named, optimizer, gradients):
    for gradient in gradients:
        for name, array in gradient.items():
            named[canonical_name(name)].grad = torch.tensor(to_torch(name, array)[1])
        optimizer.step()


def array_of(named, name):
    """A weight of torch as the Flax twin has it."""
    ours = canonical_name(name)
    return to_flax(ours, named[ours].detach().numpy())[1]


def assert_close(named, weights, before):
    """The same numbers but for optax's decay in float32, relative to the way that was gone."""
    for name, array in weights.items():
        found = array_of(named, name)
        assert np.abs(found - array).max() <= 2e-7 * np.abs(array - before[name]).max(), name


@pytest.mark.usefixtures("float64")
class TestTrainingGoesOn:
    def test_from_optax_to_torch(self):
        start, gradients = arrays(0), [arrays(seed) for seed in range(1, 7)]
        before, state = with_optax(start, gradients[:4])
        entries = adafactor_to_torch(as_ours(factored(state)), SHAPES)
        named, optimizer = of_torch(before)
        content = optimizer.state_dict()
        names = list(named)
        content["state"] = {
            i: {key: torch.tensor(array) for key, array in entries[name].items()}
            for i, name in enumerate(names)
        }
        optimizer.load_state_dict(content)
        step(named, optimizer, gradients[4:])
        assert_close(named, with_optax(before, gradients[4:], state)[0], before)

    def test_from_torch_to_optax(self):
        start, gradients = arrays(0), [arrays(seed) for seed in range(1, 7)]
        named, optimizer = of_torch(start)
        step(named, optimizer, gradients[:4])
        entries = {
            name: {key: array.numpy().copy() for key, array in optimizer.state[parameter].items()}
            for name, parameter in named.items()
        }
        ours = adafactor_to_optax(entries)
        before = {name: array_of(named, name).copy() for name in SHAPES}
        _, fresh = with_optax(before, [])
        made = factored(fresh)._replace(
            count=jnp.asarray(ours.count, jnp.int32), v_row=ours.v_row, v_col=ours.v_col, v=ours.v
        )
        state = tuple(made if hasattr(part, "v_row") else part for part in fresh)
        after, _ = with_optax(before, gradients[4:], state)
        step(named, optimizer, gradients[4:])
        assert_close(named, after, before)
        assert adafactor_to_torch(ours, SHAPES).keys() == entries.keys()
        for name, entry in adafactor_to_torch(ours, SHAPES).items():
            for key, array in entry.items():
                assert np.array_equal(array, entries[name][key]), (name, key)


class TestWhatIsKeptOtherwise:
    def test_small_matrices(self):
        name = f"{LAYER}ffn.fc1.kernel"
        whole = OptaxAdafactor(3, {name: np.zeros(1)}, {name: np.zeros(1)}, {name: np.ones((5, 7))})
        with pytest.raises(UserError) as raised:
            adafactor_to_torch(whole, {name: (5, 7)})
        says(raised.value, name, "[5, 7]", "means along both axes")
        entry = {"step": np.array(3.0), "row_var": np.ones((7, 1)), "col_var": np.ones((1, 5))}
        with pytest.raises(UserError) as raised:
            adafactor_to_optax({canonical_name(name): entry})
        says(raised.value, name, "a side below 128")
        state = adafactor_to_optax({canonical_name(name): entry}, min_dim_size_to_factor=1)
        assert (state.v_row[name].shape, state.v_col[name].shape, state.count) == ((5,), (7,), 3)

    def test_names_and_steps_that_do_not_fit(self):
        entries = {name: {"step": np.array(float(i)), "variance": np.ones(3)}
                   for i, name in enumerate(("encoder.final_norm.weight",
                                             "decoder.final_norm.weight"))}  # fmt: skip
        with pytest.raises(UserError, match="different steps"):
            adafactor_to_optax(entries)
        with pytest.raises(UserError, match=r"'encoder\.final_norm\.scale' has a state or a shape"):
            adafactor_to_torch(OptaxAdafactor(1), {"encoder.final_norm.scale": (3,)})

    def test_the_state_of_torch_is_named_where_adam_is_wanted(self):
        named, optimizer = of_torch({f"{LAYER}ffn.fc1.kernel": np.ones((3, 4))})
        step(named, optimizer, [{f"{LAYER}ffn.fc1.kernel": np.ones((3, 4))}])
        with pytest.raises(UserError) as raised:
            check_adam(optimizer.state_dict(), "optimizer.pt")
        says(raised.value, "Adafactor", "row_var", "adafactor_to_optax")
