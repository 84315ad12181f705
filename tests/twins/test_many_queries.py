"""Models of features on processors: attention a head at a time, and PyTorch's other products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hearing_cases import SPEECH, our_weights, whisper, windows

import torch_transformer
from flax_transformer.cpu import attention as flax_attention
from torch_transformer import layers, products

needs_onednn = pytest.mark.skipif(products.ONEDNN is None, reason="this PyTorch has no oneDNN")


def some(*shapes):
    draw = np.random.default_rng(3)
    return [draw.normal(0, 1, shape).astype(np.float32) for shape in shapes]


QKV = some((2, 3, 11, 5), (2, 3, 7, 5), (2, 3, 7, 5))
MASKS = {
    "all seen": np.ones((1, 1, 1, 7), bool),
    "rows": np.random.default_rng(1).random((2, 1, 1, 7)) < 0.6,
}


@needs_onednn
@pytest.mark.parametrize("name", MASKS)
def test_torch_attends_by_head(name, monkeypatch):
    monkeypatch.setattr(products, "QUERIES", 4)
    q, k, v = map(torch.from_numpy, QKV)
    mask = torch.from_numpy(MASKS[name])
    with torch.no_grad():
        assert products.many(q, mask) and not products.many(q.double(), mask)
        found = products.attention(q, k, v, mask, 0.3)
    assert not products.many(q, mask)  # of what a gradient may be wanted
    expected = layers.weighted(layers.probabilities(q, k, mask, 0.3), v)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MASKS)
def test_flax_attends_by_head(name, monkeypatch):
    """Its numbers and their gradients."""
    monkeypatch.setattr(flax_attention, "QUERIES", 4)
    q, k, v, mask = map(jnp.asarray, (*QKV, MASKS[name]))

    def total(q, k, v, by_head):
        found = flax_attention.attend(q, k, v, mask, 0.3, by_head=by_head)
        return (found * jnp.cos(jnp.arange(found.size).reshape(found.shape))).sum(), found

    calls = [
        jax.value_and_grad(total, (0, 1, 2), has_aux=True)(q, k, v, by_head)
        for by_head in (True, False)
    ]
    for ours, theirs in zip(*map(jax.tree.leaves, calls), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6)


@needs_onednn
def test_torch_multiplies_by_onednn():
    """Where no gradient is wanted, in float32, models of features on every processor."""
    model, weights = torch_transformer.Transformer(SPEECH), our_weights(whisper())
    torch_transformer.load_weights(model, {n: a.astype(np.float32) for n, a in weights.items()})
    features = torch.from_numpy(windows(2).astype(np.float32))
    tokens = torch.tensor([[61, 62, 65, 7]] * 2)
    assert all(m.quick for m in model.modules() if isinstance(m, layers.Linear))
    expected = model.double()(features.double(), tokens).detach()
    model.float()
    blas = model(features, tokens).detach()
    with torch.no_grad():
        quick = model(features, tokens)
    bound = 2e-5 * expected.std()
    for found in (blas, quick):
        assert (found - expected).abs().max() <= bound
    assert not layers.Linear(3, 3).quick


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_derivatives_that_go_forward_are_kept() -> None:
    """oneDNN's product has none: where one is asked for, it is PyTorch's own."""
    forward = torch.autograd.forward_ad
    x, weight = torch.ones(4, 3), torch.arange(6.0).reshape(2, 3)
    with torch.no_grad(), forward.dual_level():
        dual = forward.make_dual(x, torch.ones_like(x))
        tangent = forward.unpack_dual(products.linear(dual, weight, None, True)).tangent
        assert products.plain(x) and not products.plain(dual)
    assert torch.equal(tangent, torch.ones(4, 3) @ weight.T)
