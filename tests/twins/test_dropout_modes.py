"""Training and evaluation mode: what drops out when, and by which source of masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_transformer
import torch_transformer
from flax_transformer.decoding import decode as flax_decode
from parity.twins.cases import config_of
from parity.twins.pair import Twins
from torch_transformer.decoding import decode as torch_decode
from training_recipe.searching.search import Search
from transformer_spec import TransformerConfig, UserError

RATES = {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.1}
CONFIG = config_of({"norm_position": "pre"} | RATES)
SHALLOW = dataclasses.replace(CONFIG, num_encoder_layers=1, num_decoder_layers=1)
DRY = config_of({"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0})
SOURCE = np.array([[5, 6, 7, 0], [8, 9, 5, 6]], np.int32)
TARGET = np.array([[2, 5, 6], [2, 7, 0]], np.int32)


def flax_model(config: TransformerConfig = SHALLOW) -> flax_transformer.Transformer:
    return flax_transformer.Transformer(config, seed=1)


def torch_logits(model: torch_transformer.Transformer, *dropout) -> np.ndarray:
    return model(torch.from_numpy(SOURCE), torch.from_numpy(TARGET), *dropout).detach().numpy()


def flax_logits(model: flax_transformer.Transformer, *dropout) -> np.ndarray:
    return np.asarray(model(jnp.asarray(SOURCE), jnp.asarray(TARGET), *dropout))


@nnx.jit
def compiled_logits(model: flax_transformer.Transformer, source, target, dropout) -> jax.Array:
    """The same as one program, where that compiles sooner than every operation by itself."""
    return model(source, target, dropout)


def test_torch_modes() -> None:
    model = torch_transformer.Transformer(CONFIG, seed=1)
    plain = torch_logits(model)
    assert not model.training and (plain == torch_logits(model)).all()
    model.train()
    torch.manual_seed(5)
    first, second = torch_logits(model), torch_logits(model)
    torch.manual_seed(5)
    assert (first == torch_logits(model)).all()
    assert not (first == second).all() and not (first == plain).all()
    model.eval()
    assert (plain == torch_logits(model)).all()


def test_torch_gradients_in_training_mode() -> None:
    model = torch_transformer.Transformer(CONFIG, seed=1).train()
    model(torch.from_numpy(SOURCE), torch.from_numpy(TARGET)).square().sum().backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(found) == len(list(model.parameters()))
    assert all(bool(gradient.isfinite().all()) for gradient in found)


def test_flax_modes() -> None:
    model = flax_model()

    def logits(dropout=None) -> np.ndarray:
        return np.asarray(compiled_logits(model, jnp.asarray(SOURCE), jnp.asarray(TARGET), dropout))

    plain = logits()
    assert (plain == logits()).all()
    model.train()
    with pytest.raises(UserError, match="jax.random.key"):
        flax_logits(model)
    key = jax.random.key(3)
    first, second = logits(key), logits(jax.random.key(4))
    assert (first == logits(key)).all()
    assert not (first == second).all() and not (first == plain).all()
    rngs = nnx.Rngs(0)
    assert not (logits(rngs) == logits(rngs)).all()
    named = nnx.Rngs(0, dropout=7)
    assert (logits(named) == logits(nnx.Rngs(dropout=7))).all()
    model.eval()
    assert (plain == logits()).all()


def test_a_model_without_dropout_needs_no_source() -> None:
    model = flax_model(DRY)
    plain = flax_logits(model)
    model.train()
    assert (plain == flax_logits(model)).all()


def test_what_is_no_source_is_an_error() -> None:
    for wrong in (jnp.arange(2, dtype=jnp.uint32), jax.random.split(jax.random.key(0))):
        with pytest.raises(UserError, match=r"give one jax\.random\.key"):
            flax_logits(flax_model(), wrong)


@pytest.mark.thorough
def test_sources_are_arguments_of_one_program() -> None:
    """Other keys are other masks of the same program, whatever carries them."""
    model, traced = flax_model(), []
    model.train()

    @nnx.jit
    def logits(model: flax_transformer.Transformer, dropout) -> jax.Array:
        traced.append(type(dropout))
        return model(jnp.asarray(SOURCE), jnp.asarray(TARGET), dropout)

    for make in (jax.random.key, flax_transformer.Dropout):
        first, second, again = (np.asarray(logits(model, make(key))) for key in (3, 4, 3))
        assert (first == again).all() and not (first == second).all()
        np.testing.assert_allclose(first, flax_logits(model, make(3)), rtol=0, atol=1e-5)
    rngs = nnx.Rngs(0)
    assert not (logits(model, rngs) == logits(model, rngs)).all()
    assert len(traced) == 3


def test_a_pytree_of_each_kind() -> None:
    for source in (flax_transformer.Dropout(7), flax_transformer.dropout.NativeDropout(7)):
        (leaf,), tree = jax.tree.flatten(source)
        made = jax.tree.unflatten(tree, [leaf])
        assert type(made) is type(source) and int(leaf) == 7 == int(made.key)


def test_gradients_in_training_mode() -> None:
    model = flax_model()
    model.train()

    @nnx.jit
    def gradients(model: flax_transformer.Transformer, key: jax.Array) -> nnx.State:
        def loss(model: flax_transformer.Transformer) -> jax.Array:
            return jnp.square(model(jnp.asarray(SOURCE), jnp.asarray(TARGET), key)).sum()

        return nnx.grad(loss)(model)

    first, second = (jax.tree.leaves(gradients(model, jax.random.key(k))) for k in (1, 2))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in first)
    assert any(bool((a != b).any()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.usefixtures("float64")
def test_portable_masks_are_equal_in_either_mode(training: bool) -> None:
    twins = Twins(CONFIG, "float64")
    twins.torch.train(training)
    twins.flax.train() if training else twins.flax.eval()
    ours = twins.torch(*map(twins.to_torch, (SOURCE, TARGET)), torch_transformer.Dropout(9))
    arrays = tuple(map(twins.to_jax, (SOURCE, TARGET)))
    theirs, other = (
        np.asarray(compiled_logits(twins.flax, *arrays, flax_transformer.Dropout(key)))
        for key in (9, 8)
    )
    assert np.abs(ours.detach().numpy() - theirs).max() <= 1e-11
    assert np.abs(theirs - other).max() > 1e-3


def test_searching_drops_out_nothing() -> None:
    search = Search(beam=2, max_length=6)
    ours, theirs = torch_transformer.Transformer(SHALLOW, seed=1), flax_model()
    plain = torch_decode(ours, SOURCE, search), flax_decode(theirs, SOURCE, search)
    ours.train(), theirs.train()
    assert plain == (torch_decode(ours, SOURCE, search), flax_decode(theirs, SOURCE, search))
    for twin, model in ((torch_transformer, ours), (flax_transformer, theirs)):
        found = twin.attention_weights(model, SOURCE, TARGET)
        model.eval()
        assert (found.cross == twin.attention_weights(model, SOURCE, TARGET).cross).all()
