"""Norms by the standard deviation, positions that are never trained, and the other later fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_transformer
import torch_transformer
from flax_transformer.cpu.gradients import std_norm
from flax_transformer.primitives import Frozen
from parity.twins.cases import config_of
from parity.twins.pair import Twins
from torch_transformer.layers import StdNorm
from transformer_spec import TransformerConfig, UserError, sinusoid_table, trained_names

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")
EPSILON = 1e-6


def formula(x, scale, bias):
    return (
        scale * (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + EPSILON)
        + bias
    )


def rows_of(D: int) -> np.ndarray:
    """Vectors of which one has equal features."""
    x = np.random.default_rng(0).normal(size=(2, 4, D))
    x[1, 2] = 0.75
    return x


def norm_of(scale: np.ndarray, bias: np.ndarray) -> StdNorm:
    norm = StdNorm(len(scale), EPSILON).double()
    norm.load_state_dict({"weight": torch.tensor(scale), "bias": torch.tensor(bias)})
    return norm


@pytest.mark.parametrize("D", [3, 8])
def test_both_norms_are_the_formula_and_have_its_gradients(D):
    """The gradients against central differences; equal features, where it has none, get zeros."""
    x, draw = rows_of(D), np.random.default_rng(1)
    scale, bias, weight = draw.normal(size=D), draw.normal(size=D), draw.normal(size=x.shape)
    given = torch.tensor(x, requires_grad=True)
    norm = norm_of(scale, bias)
    (norm(given) * torch.tensor(weight)).sum().backward()
    loss = lambda x, s, b: (std_norm(x, s, b, EPSILON) * weight).sum()  # noqa: E731
    theirs = jax.grad(loss, (0, 1, 2))(*map(jnp.asarray, (x, scale, bias)))
    mine = [given.grad, norm.weight.grad, norm.bias.grad]
    assert np.abs(norm(given).detach().numpy() - formula(x, scale, bias)).max() <= 1e-12
    assert (
        np.abs(
            np.asarray(std_norm(*map(jnp.asarray, (x, scale, bias)), EPSILON))
            - formula(x, scale, bias)
        ).max()
        <= 1e-12
    )
    for ours, other in zip(mine, theirs, strict=True):
        assert np.isfinite(other).all()
        assert np.abs(ours.numpy() - np.asarray(other)).max() <= 1e-9 * max(1, np.abs(other).max())
    numeric = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = 1e-6
        both = (formula(x + s, scale, bias) * weight for s in (step, -step))
        numeric[at] = np.subtract(*(part.sum() for part in both)) / 2e-6
    there = np.ones(x.shape, bool)
    there[1, 2] = False
    assert np.abs(numeric - mine[0].numpy())[there].max() <= 1e-5 * np.abs(numeric[there]).max()


def test_one_feature_has_no_deviation():
    with pytest.raises(UserError, match="hidden_dim >= 2"):
        config_of({"hidden_dim": 1, "num_heads": 1, "norm": "std"})


FROZEN = {"encoder_positions": "frozen", "decoder_positions": "frozen", "position_offset": 2}


@pytest.fixture(scope="module")
def frozen() -> TransformerConfig:
    return config_of(
        FROZEN | {"norm": "std", "attention_bias": False, "attention_output_bias": True}
    )


def test_frozen_positions_begin_as_sinusoids_and_are_never_trained(frozen):
    names = {f"{half}.pos_embedding.weight" for half in ("encoder", "decoder")}
    assert names.isdisjoint(trained_names(frozen))
    twins = Twins(frozen, "float64")
    held, parameters = torch_transformer.weights(twins.torch), dict(twins.torch.named_parameters())
    variables = {
        type(leaf)
        for path, leaf in nnx.to_flat_state(nnx.state(twins.flax))
        if "pos_embedding" in path
    }
    assert variables == {Frozen}
    for name in names:
        assert np.array_equal(held[name], sinusoid_table(frozen, np.float64))
        assert name not in parameters


def test_they_are_added_as_the_sinusoids_that_they_begin_as(frozen):
    from dataclasses import replace

    other = Twins(
        replace(frozen, encoder_positions="sinusoidal", decoder_positions="sinusoidal"), "float64"
    )
    mine = Twins(frozen, "float64")
    weights = torch_transformer.weights(other.torch)
    torch_transformer.load_weights(
        mine.torch, {n: weights.get(n, a) for n, a in torch_transformer.weights(mine.torch).items()}
    )
    with torch.no_grad():
        one, two = (t.torch(t.to_torch(t.source), t.to_torch(t.target)) for t in (mine, other))
    assert (one - two).abs().max() <= 1e-12


def test_the_bias_of_the_output_alone(frozen):
    biases = {
        n.split(".")[-2] for n in trained_names(frozen) if "attention" in n and n.endswith("bias")
    }
    assert biases == {"fcOut"}
    assert config_of({"attention_bias": False}).attention_output_bias is False
    assert "attention_output_bias" not in config_of({"attention_bias": False}).to_dict()


@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_dropout_after_the_norm_leaves_zeros_in_what_a_layer_gives(twin):
    config = config_of({"dropout": 0.5, "dropout_after_norm": True, "num_encoder_layers": 1})
    twins = Twins(config, "float64")
    if twin == "torch":
        source, drops = twins.to_torch(twins.source), torch_transformer.Dropout(7)
        memory = twins.torch.encode(source, drops).detach().numpy()
    else:
        memory = np.asarray(
            twins.flax.encode(twins.to_jax(twins.source), flax_transformer.Dropout(7))
        )
    assert 0.35 < (memory == 0).mean() < 0.65


def test_dropout_after_the_norm_needs_one_after_the_sum():
    with pytest.raises(UserError, match="is for norm_position 'post'"):
        TransformerConfig(9, 9, 4, 4, 1, 1, 1, 9, norm_position="pre", dropout_after_norm=True)
