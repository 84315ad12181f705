"""One bfloat16 pass per product: against NumPy, and with every product accounted for."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import flax_transformer
from flax_transformer.layers import attention
from flax_transformer.loss import smoothed_cross_entropy
from flax_transformer.primitives import Linear
from parity.forward.one_pass import every_product, one_pass_bfloat16, round_to_bfloat16
from parity.twins.cases import config_of, inputs

EPSILON = 2.0**-8  # half a unit in the last place of bfloat16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rounded(x: np.ndarray) -> np.ndarray:
    """To bfloat16 by another library's conversion; sums are then made in float64."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def equations(jaxpr):
    """Every equation of a jaxpr with the jaxpr that it stands in."""
    for equation in jaxpr.eqns:
        yield equation, jaxpr
        for value in equation.params.values():
            for entry in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(entry, "jaxpr", entry)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def products_of(function, *arguments) -> tuple[int, int]:
    """Matrix products of a function, and those of them whose operands were both just rounded."""
    found = list(equations(jax.make_jaxpr(function)(*arguments).jaxpr))
    products = [(e, inside) for e, inside in found if e.primitive.name == "dot_general"]
    return len(products), sum(_operands_rounded(*product) for product in products)


def _operands_rounded(equation, jaxpr) -> bool:
    makers = {id(out): maker for maker in jaxpr.eqns for out in maker.outvars}
    names = [makers[id(x)].primitive.name for x in equation.invars if id(x) in makers]
    return names == ["reduce_precision"] * 2


def test_rounding_is_that_of_bfloat16_for_every_kind_of_number() -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    ties = np.arange(0x3F800000, 0x3F900000, 0x8000, dtype=np.uint32)
    special = np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1, 0x8000], np.uint32)
    x = np.concatenate([bits, ties, special]).view(np.float32)
    x = x[~np.isnan(x) & ((np.abs(x) >= np.finfo(np.float32).tiny) | (x == 0))]
    ours = np.asarray(round_to_bfloat16(jnp.asarray(x)))
    with np.errstate(over="ignore"):
        theirs = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(ours, theirs)


def test_integers_and_narrow_numbers_stay() -> None:
    for dtype in (jnp.int32, jnp.bfloat16, jnp.float16):
        x = jnp.arange(5).astype(dtype)
        assert round_to_bfloat16(x) is x


def test_linear_is_numpys() -> None:
    layer = Linear(13, 7, bias=True)
    x, kernel, bias = normal(5, 3, 13), normal(13, 7, seed=1), normal(7, seed=2)
    layer.kernel.set_value(jnp.asarray(kernel))
    layer.bias.set_value(jnp.asarray(bias))
    ours = np.asarray(one_pass_bfloat16(layer)(jnp.asarray(x)))
    expected = rounded(x) @ rounded(kernel) + bias
    assert np.abs(ours - expected).max() < 1e-5
    exact = x.astype(np.float64) @ kernel + bias
    assert 1e-3 < np.abs(ours - exact).max() < 13 * 2.1 * EPSILON * 10


def test_attention_is_numpys() -> None:
    config = config_of({"num_heads": 3})
    q, k, v = (normal(2, 3, n, 5, seed=seed) for seed, n in enumerate((5, 7, 7)))
    mask = np.random.default_rng(3).random((2, 1, 5, 7)) < 0.7
    mask[..., 0] = True

    def attend(q, k, v):
        return attention(q, k, v, jnp.asarray(mask), config, None)

    ours = np.asarray(one_pass_bfloat16(attend)(*map(jnp.asarray, (q, k, v))))
    scores = np.einsum(
        "bhqa,bhka->bhqk", rounded(q * np.float32(config.attention_scale)), rounded(k)
    )
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    expected = np.einsum("bhqk,bhka->bhqa", rounded(weights), rounded(v))
    # Float32 rounding can carry a probability over a tie of bfloat16, and no further.
    assert np.abs(ours - expected).max() < 2 * EPSILON * np.abs(v).max()
    assert np.median(np.abs(ours - expected)) < 1e-6
    exact = np.asarray(attend(*map(jnp.asarray, (q, k, v))))
    assert np.abs(ours - exact).max() > 1e-4


@pytest.mark.sampled(1)
@pytest.mark.parametrize("tied", ["none", "all"])
def test_every_product_of_the_model_is_rewritten(tied: str) -> None:
    config = config_of({"tied_embeddings": tied, "num_decoder_layers": 3})
    model = flax_transformer.Transformer(config)
    source, target = map(jnp.asarray, inputs(config))
    # Layers: Linears, attention as on a processor and elsewhere, feed-forward; the logits.
    expected = 2 * (4 + 2 * 2 + 2) + 3 * (8 + 2 * 4 + 2) + 1
    assert products_of(model, source, target) == (expected, 0)
    assert products_of(one_pass_bfloat16(model), source, target) == (expected, expected)
    ours = np.asarray(one_pass_bfloat16(model)(source, target))
    apart = np.abs(ours - np.asarray(model(source, target))).max()
    assert 1e-3 < apart < 0.5


def test_products_in_loops_branches_and_gradients_are_rewritten() -> None:
    def branches(x):
        y = jax.lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: x @ (x + 1), x)
        y = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] @ x), (0, y))[1]
        y = jax.lax.scan(lambda c, r: (c @ x + r, c[0]), y, x)[0]
        return jax.checkpoint(jax.jit(lambda y: jnp.tanh(y @ y)))(y)

    x = jnp.asarray(normal(3, 3) / 3)
    assert products_of(one_pass_bfloat16(branches), x) == (5, 5)
    gradient = jax.grad(lambda x: jax.lax.scan(lambda c, r: (c @ x, r), x, x)[0].sum())
    assert products_of(gradient, x) == products_of(one_pass_bfloat16(gradient), x)[:1] + (0,)
    count, rounded_count = products_of(one_pass_bfloat16(gradient), x)
    assert count == rounded_count > 2
    assert one_pass_bfloat16(gradient)(x).shape == x.shape


def test_the_loss_whose_gradients_are_written_out_is_rewritten() -> None:
    states, table = jnp.asarray(normal(70, 15)), jnp.asarray(normal(30_000, 15, seed=1))

    def loss(states, table):
        return smoothed_cross_entropy(states, table, None, jnp.arange(70), 0, 0.1)

    both = jax.grad(loss, argnums=(0, 1))
    count, rounded_count = products_of(one_pass_bfloat16(both), states, table)
    assert count == rounded_count >= 3
    pairs = zip(one_pass_bfloat16(both)(states, table), both(states, table), strict=True)
    for ours, exact in pairs:
        apart = float(jnp.abs(ours - exact).max())
        assert 0 < apart < 0.05 * float(jnp.abs(exact).max())


def test_one_pass_is_applied_last() -> None:
    with pytest.raises(TypeError, match=r"one_pass_bfloat16\(jax.grad\(f\)\)"):
        jax.grad(one_pass_bfloat16(lambda x: (x @ x).sum()))(jnp.ones((3, 3)))


def test_pytrees_and_products_in_counted_loops() -> None:
    def scores(weights, x):
        x = jax.lax.scan(lambda c, _: (c @ weights["w"], None), x, length=5)[0]
        return {"twice": (x, 2 * x)}

    weights, x = {"w": normal(3, 3)}, normal(2, 3)
    made = one_pass_bfloat16(scores)(weights, x)
    assert set(made) == {"twice"} and made["twice"][1].shape == (2, 3)
    jaxpr = jax.make_jaxpr(scores)(weights, x).jaxpr
    assert [turns for _, turns in every_product(jaxpr)] == [5]
