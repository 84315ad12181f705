"""The chunked loss equals PyTorch's cross entropy, value and gradients, whatever the chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import flax_transformer.loss as flax_side
import torch_transformer.loss as torch_side

pytestmark = pytest.mark.usefixtures("float64")

N, D, V, PAD = 23, 7, 11, 0


def arrays(bias: bool) -> list[np.ndarray | None]:
    generator = np.random.default_rng(0)
    targets = generator.integers(1, V, N)
    targets[[3, 22]] = PAD
    weight, states = generator.normal(size=(V, D)), generator.normal(size=(N, D))
    return [states, weight, generator.normal(size=V) if bias else None, targets]


def reference(parts: list, smoothing: float) -> list[np.ndarray]:
    states, weight, bias, targets = [None if p is None else torch.from_numpy(p) for p in parts]
    leaves = [p.requires_grad_() for p in (states, weight, bias) if p is not None]
    loss = F.cross_entropy(
        F.linear(states, weight, bias),
        targets,
        ignore_index=PAD,
        reduction="sum",
        label_smoothing=smoothing,
    )
    (3 * loss).backward()
    return [loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]


def torch_loss(parts: list, smoothing: float) -> list[np.ndarray]:
    states, weight, bias, targets = [None if p is None else torch.from_numpy(p) for p in parts]
    leaves = [p.requires_grad_() for p in (states, weight, bias) if p is not None]
    loss = torch_side.smoothed_cross_entropy(states, weight, bias, targets, PAD, smoothing)
    (3 * loss).backward()
    return [loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]


def flax_loss(parts: list, smoothing: float) -> list[np.ndarray]:
    states, weight, bias, targets = [None if p is None else jnp.asarray(p) for p in parts]

    def loss(states, weight, bias):
        sides = states, weight, bias, targets, PAD, smoothing
        return 3 * flax_side.smoothed_cross_entropy(*sides)

    numbers = (0, 1) if bias is None else (0, 1, 2)
    value, gradients = jax.value_and_grad(loss, argnums=numbers)(states, weight, bias)
    return [np.asarray(value) / 3, *map(np.asarray, gradients)]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("run", [torch_loss, flax_loss])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [5, 64])
def test_loss_and_gradients(monkeypatch, run, smoothing: float, bias: bool, chunk: int) -> None:
    for side in (torch_side, flax_side):
        monkeypatch.setattr(side, "chunk_tokens", lambda tokens, vocab: min(tokens, chunk))
    found, expected = run(arrays(bias), smoothing), reference(arrays(bias), smoothing)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12, rtol=0)


def test_no_gradient_is_computed_where_none_is_asked_for(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(torch_side.torch, "mm", lambda *a, **k: made.append(a))
    *factors, targets = (torch.from_numpy(p) for p in arrays(True))
    for factor in factors:
        factor.requires_grad_()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch_side.smoothed_cross_entropy(*factors, targets, PAD, 0.1)
    assert made == []
