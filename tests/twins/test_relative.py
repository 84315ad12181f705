"""Relative positions, RMSNorm, gates and output scale: what they compute, and where it counts."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx
from relative_cases import CONFIGS, Formulas, bucket

import flax_transformer
import torch_transformer
from flax_transformer import decoding_state as flax_state
from flax_transformer import layers as flax_layers
from parity.forward.gradients import flax_gradients, torch_gradients
from parity.twins.cases import config_of
from parity.twins.pair import Twins
from torch_transformer import decoding_state as torch_state
from torch_transformer import layers as torch_layers
from torch_transformer.step import objective
from transformer_spec import TransformerConfig, relative_buckets

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
SLOW = pytest.mark.thorough


def one_quick(name: str) -> pytest.MarkDecorator:
    """Both configs, of which one alone is quick enough for every day."""
    return pytest.mark.parametrize(
        "config",
        [pytest.param(c, id=n, marks=() if n == name else SLOW) for n, c in CONFIGS.items()],
    )


RATES = {
    "dropout": 0.1, "attention_dropout": 0.2, "activation_dropout": 0.3, "final_dropout": 0.2
}  # fmt: skip


def ids(config: TransformerConfig) -> tuple[np.ndarray, np.ndarray]:
    """Sources and targets as long as the model takes, some padded at their end."""
    draw = np.random.default_rng(1)
    source, target = draw.integers(4, config.source_vocab_size, (2, 3, config.max_length))
    source[1, 6:], target[2, 11:], target[:, 0] = 0, 0, config.decoder_start_id
    return source, target


@each_config
def test_the_twins_are_the_formulas(config) -> None:
    twins, (source, target) = Twins(config, "float64"), ids(config)
    expected = Formulas(config, torch_transformer.weights(twins.torch))(source, target)
    real = target != config.pad_id
    real[:, 0] = True
    with torch.no_grad():
        ours = twins.torch(twins.to_torch(source), twins.to_torch(target)).numpy()
    theirs = jax.jit(twins.flax.__call__)(twins.to_jax(source), twins.to_jax(target))
    for logits in (ours, np.asarray(theirs)):
        assert np.abs(logits - expected)[real].max() <= 1e-11


@each_config
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_each_distance_has_its_row(config, half) -> None:
    K = config.max_length
    found = relative_buckets(config, half)
    assert found.tolist() == [bucket(distance, half, config) for distance in range(1 - K, K)]
    assert set(found) == set(range(8)) - ({4} if half == "encoder" else set())


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_buckets_are_those_of_torch_in_float32(half) -> None:
    """Logarithms rounded otherwise put some distances into another bucket."""
    apart = torch.arange(-599, 600)
    for rows in (4, 6, 8, 12, 16, 20, 32, 64):
        mine = rows // 2 if half == "encoder" else rows
        exact = mine // 2
        away = apart.abs() if half == "encoder" else (-apart).clamp(min=0)
        base = mine * (apart > 0) if half == "encoder" else 0
        for farthest in (exact + 1, 20, 33, 64, 100, 128, 144, 256, 288, 500):
            if farthest > exact:
                far = torch.log(away.float() / exact) / math.log(farthest / exact)
                far = exact + (far * (mine - exact)).nan_to_num(0, 0, 0).long()
                wanted = base + torch.where(away < exact, away, far.clamp(max=mine - 1))
                config = config_of(
                    {"encoder_positions": "relative", "relative_buckets": rows}
                    | {"relative_max_distance": max(farthest, rows), "max_length": 600}
                )
                config = dataclasses.replace(config, relative_max_distance=farthest)
                assert np.array_equal(relative_buckets(config, half), wanted.numpy())


@one_quick("shared")
def test_gradients_of_layers_computed_again(config) -> None:
    """With every dropout, of tables in the layers and outside; one row is of no distance."""
    twins = Twins(dataclasses.replace(config, **RATES), "float64")
    twins.source[4, :3] = 7  # a zero vector, as padding's, has gradients of 1 / epsilon
    given = (twins.source, twins.target[:, :-1], twins.target[:, 1:]), 40, 0.1
    _, plain = torch_gradients(twins.torch, *given, torch_transformer.Dropout(5))
    twins.torch.recompute_layers(True)
    twins.flax.recompute_layers(True)
    _, again = torch_gradients(twins.torch, *given, torch_transformer.Dropout(5))
    _, theirs = flax_gradients(twins.flax, *given, flax_transformer.Dropout(5), compiled=True)
    assert all(np.abs(plain[name] - again[name]).max() <= 1e-13 for name in plain)
    assert all(np.abs(plain[name] - theirs[name]).max() <= 1e-10 for name in plain)
    tables = {n: g for n, g in plain.items() if n.endswith("relative_bias.weight")}
    assert len(tables) == (5 if config.relative_per_layer else 2)
    for name, gradient in tables.items():
        unused = name.startswith("encoder") & (np.arange(8) == 4)
        assert (gradient[unused] == 0).all() and (gradient[~unused] != 0).all()


def test_what_leaves_a_half_is_dropped_out() -> None:
    config = dataclasses.replace(CONFIGS["shared"], final_dropout=0.4)
    twins, (source, _) = Twins(config, "float64"), ids(config)
    given = twins.to_torch(source), twins.to_jax(source)
    with torch.no_grad():
        whole = twins.torch.encoder_states(given[0], None).numpy()
        ours = twins.torch.encoder_states(given[0], torch_transformer.Dropout(3)).numpy()
    run = jax.jit(lambda source: twins.flax.encoder_states(source, flax_transformer.Dropout(3)))
    theirs = np.asarray(run(given[1]))
    assert np.abs(ours - theirs).max() <= 1e-12
    dropped = ours == 0
    assert 0.3 < dropped.mean() < 0.5
    assert np.abs(ours - whole / 0.6)[~dropped].max() <= 1e-12


def cached(step: Callable, model: Any, state: Any, pieces: list[Any]) -> np.ndarray:
    """Logits (B, N, T, V) of pieces of N outputs a source."""
    found = []
    for tokens in pieces:
        logits, state = step(model, tokens, state)
        found.append(np.asarray(logits))
    joined = np.concatenate(found, 1)
    return joined.reshape(-1, 3, *joined.shape[1:])


@one_quick("of layers")
def test_three_outputs_in_pieces_are_what_is_computed_at_once(config) -> None:
    """Each output its own tokens, in a cache with more columns than they take."""
    twins, (source, target) = Twins(config, "float64"), ids(config)
    target = target[:, :13]
    others = np.concatenate([target[:, :1], np.roll(target[:, 1:], 3, 1)], 1)
    rows = np.stack([target, others, target], 1).reshape(9, 13)
    pieces = np.split(rows, [1, 7], 1)
    with torch.no_grad():
        memory = twins.torch.encode(twins.to_torch(source))
        state = torch_state.start(twins.torch, memory, twins.to_torch(source), 15, 3)
        ours = cached(torch_state.next_logits, twins.torch, state, list(map(torch.tensor, pieces)))
        whole = twins.torch(twins.to_torch(source.repeat(3, 0)), twins.to_torch(rows)).numpy()
    sources = twins.to_jax(source)
    state = flax_state.start(twins.flax, twins.flax.encode(sources), sources, 15, 3)
    step = nnx.jit(flax_state.next_logits)
    theirs = cached(step, twins.flax, state, list(map(jnp.array, pieces)))
    whole = whole.reshape(ours.shape)
    real = (rows != 0).reshape(ours.shape[:3])
    for found in (ours, theirs):
        assert np.abs(found - whole)[real].max() <= 1e-11


def test_the_loss_is_of_scaled_states() -> None:
    twins, (source, target) = Twins(CONFIGS["shared"], "float64"), ids(CONFIGS["shared"])
    tokens = [twins.to_torch(ids) for ids in (source, target[:, :-1], target[:, 1:])]
    table = twins.torch.encoder.embedding.weight
    loss = objective(twins.torch, *tokens, smoothing=0.1, dropout=None)
    logits, wanted = twins.torch(*tokens[:2]).flatten(0, 1), tokens[2].flatten()
    plain = F.cross_entropy(logits, wanted, ignore_index=0, reduction="sum", label_smoothing=0.1)
    found, expected = (torch.autograd.grad(each, table)[0] for each in (loss, plain))
    assert float((loss - plain).detach().abs()) <= 1e-10
    assert float((found - expected).abs().max()) <= 1e-10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rms_is_taken_in_float32(dtype) -> None:
    """What is small beside bfloat16's steps is not lost, in either framework."""
    config = CONFIGS["shared"]
    x = np.random.default_rng(0).normal(size=(7, config.hidden_dim)).astype(np.float32)
    ours = torch_layers.layer_norm(config)
    theirs = flax_layers.layer_norm(config)
    theirs.scale.set_value(jnp.ones(config.hidden_dim, dtype))
    given = torch.from_numpy(x).to(getattr(torch, dtype))
    with torch.no_grad():
        found = ours.to(given.dtype)(given).float().numpy()
    other = np.asarray(theirs(jnp.asarray(x, dtype)), np.float32)
    wide = given.double().numpy()
    exact = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    step = 2.0**-7 if dtype == "bfloat16" else 2.0**-22
    for logits in (found, other):
        assert np.abs(logits / exact - 1).max() <= step
