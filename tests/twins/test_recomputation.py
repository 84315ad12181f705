"""Layers that are computed again for the gradient: the same numbers, and less that is kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_training
from small_training import MAKERS, SETTINGS, train

import flax_transformer
import torch_transformer
import torch_transformer.recomputation

AGAIN = dataclasses.replace(SETTINGS, gradient_checkpointing=True)
CONFIG = dataclasses.replace(
    small_training.CONFIG, dropout=0.2, attention_dropout=0.1, activation_dropout=0.1
)


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("rng", ["portable", pytest.param("native", marks=pytest.mark.thorough)])
@pytest.mark.usefixtures("float64")
def test_the_same_losses_with_dropout(name, rng) -> None:
    settings = dataclasses.replace(AGAIN, dropout_rng=rng, accumulate=2)
    plain = dataclasses.replace(settings, gradient_checkpointing=False)
    losses = [train(MAKERS[name](CONFIG, each), each, 1, 5) for each in (plain, settings)]
    assert np.abs(np.subtract(*losses)).max() <= 1e-14


@pytest.mark.usefixtures("float64")
def test_sites_counted_on_would_be_noticed(monkeypatch) -> None:
    """The check above fails where the second computation goes on with the first one's sites."""
    plain = dataclasses.replace(AGAIN, gradient_checkpointing=False)
    expected = train(MAKERS["torch"](CONFIG, plain), plain, 1, 5)

    def careless(layer, recomputed, dropout, x, *others, bias=None):
        run = torch_transformer.recomputation.checkpoint
        return run(lambda x: layer(x, *others, dropout, bias), x, use_reentrant=False)

    monkeypatch.setattr("torch_transformer.model.call", careless)
    found = train(MAKERS["torch"](CONFIG, AGAIN), AGAIN, 1, 5)
    assert np.abs(np.subtract(found, expected)).max() > 1e-5


def test_the_flax_program_computes_layers_twice() -> None:
    model = flax_transformer.Transformer(CONFIG)

    def products(wanted: bool) -> int:
        model.recompute_layers(wanted)
        loss = jax.grad(lambda x: model.encoder(x, jnp.ones((2, 1, 1, 5), bool)).sum())
        x = jnp.ones((2, 5, CONFIG.hidden_dim))
        return str(jax.make_jaxpr(loss)(x)).count("dot_general")

    assert products(True) > products(False)


def test_the_torch_graph_keeps_the_layers_inputs_alone() -> None:
    import torch

    model = torch_transformer.Transformer(CONFIG)
    x = torch.ones(2, 5, CONFIG.hidden_dim)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)

    def kept(wanted: bool) -> int:
        sizes = []
        model.recompute_layers(wanted)

        def note(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model.encoder(x, mask).sum()
        return sum(sizes)

    assert kept(True) < kept(False) / 2
