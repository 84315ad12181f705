"""``--dtype bfloat16``: which numbers are in which format, and how near the losses stay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.extend.core import jaxprs_in_params
from small_training import CONFIG, MAKERS, batch, changed, train
from torch.utils._python_dispatch import TorchDispatchMode

import flax_transformer.loss as flax_loss
import torch_transformer.loss as torch_loss
from flax_transformer.precision import factors as flax_factors
from parity.twins.cases import config_of
from torch_transformer.precision import factors as torch_factors
from torch_transformer.precision import products_in
from training_recipe.options.settings import TrainingSettings

# Every kind of matrix product that training has, and every kind of dropout.
EVERY = config_of(
    {"num_encoder_layers": 1, "num_decoder_layers": 1, "norm_position": "post", "dropout": 0.1}
    | {"attention_dropout": 0.1, "activation_dropout": 0.1, "output_bias": "none"}
)
RELATIVE = dataclasses.replace(
    EVERY, norm="rms", gated_ffn=True, encoder_positions="relative", decoder_positions="relative",
    relative_buckets=8, relative_max_distance=10, relative_per_layer=True, output_scale=0.5,
)  # fmt: skip
NOISY = dataclasses.replace(EVERY, attention_dropout=0.0, activation_dropout=0.0)
LOW, FULL = changed(dtype="bfloat16"), changed(dtype="float32")
# Measured over 30 steps: at most 3.2e-3 of the loss.
RELATIVE_BOUND = 1e-2


class Products(TorchDispatchMode):
    """Notes the formats of what goes into every matrix product, and of what sums are taken of."""

    NAMES = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear")
    ATTENTION = "scaled_dot_product"
    WIDE = (
        "native_layer_norm", "_softmax", "exp", "log", "native_layer_norm_backward", "rsqrt",
        "_fused_rms_norm",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.formats: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        if name in (*self.NAMES, *self.WIDE) or self.ATTENTION in name:
            given = [a.dtype for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()]
            # Behind the factors the backward of fused attention is given its sums, in float32.
            self.formats.setdefault(name, set()).update(given[:3])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", [CONFIG, EVERY], ids=["fused attention", "every product"])
def test_products_of_torch(config) -> None:
    with Products() as found:
        MAKERS["torch"](config, LOW).train_step([batch(0, 3)], 1, 1e-3)
    wide = {name: found.formats.pop(name) for name in Products.WIDE if name in found.formats}
    assert {"native_layer_norm", "exp", "log"} <= wide.keys()
    assert set().union(*wide.values()) == {torch.float32}
    assert {"mm", "addmm"} <= found.formats.keys()
    assert any(Products.ATTENTION in name or name == "bmm" for name in found.formats)
    assert set().union(*found.formats.values()) == {torch.bfloat16}, found.formats


def equations(jaxpr):
    """Every equation of a jaxpr and of those inside; of a choice by platform, the processor's.

    Elsewhere attention is JAX's own, which chooses its formats itself.
    """
    for equation in jaxpr.eqns:
        yield equation
        inside = list(jaxprs_in_params(equation.params))
        for inner in inside[:1] if equation.primitive.name == "cond" else inside:
            yield from equations(inner)


@pytest.mark.parametrize(
    "config", [CONFIG, EVERY, RELATIVE], ids=["no dropout", "dropout everywhere", "relative"]
)
def test_products_of_jax(config) -> None:
    """All but sums over tokens that are written as products with a row of ones."""
    backend = MAKERS["jax"](config, LOW)
    arrays = backend.arrays(batch(0, 3))
    arguments = backend.trained, backend.frozen, arrays, np.uint32(1), 5
    found = list(equations(jax.make_jaxpr(backend.programs.pure_gradients)(*arguments).jaxpr))
    products = [e for e in found if e.primitive.name == "dot_general"]
    assert len(products) > 40
    for equation in products:
        left, right = (variable.aval for variable in equation.invars)
        sums_of_tokens = left.shape[0] == 1 and left.ndim == 2
        formats = {left.dtype.name, right.dtype.name}
        assert formats == {"bfloat16"} or (sums_of_tokens and formats == {"float32"}), equation
    for equation in found:
        if equation.primitive.name in ("rsqrt", "exp", "log"):
            assert equation.invars[0].aval.dtype == jnp.float32, equation


def test_norms_without_a_mean_and_scores_with_a_bias_are_in_float32() -> None:
    with Products() as found:
        MAKERS["torch"](RELATIVE, LOW).train_step([batch(0, 3)], 1, 1e-3)
    for name in ("rsqrt", "_softmax", "exp", "log"):
        assert found.formats.pop(name) == {torch.float32}, name
    found.formats.pop("native_layer_norm_backward", None)
    assert set().union(*found.formats.values()) == {torch.bfloat16}, found.formats


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", MAKERS)
def test_losses_stay_near_those_of_float32_and_what_is_kept_is_float32(name: str) -> None:
    low, full = MAKERS[name](NOISY, LOW), MAKERS[name](NOISY, FULL)
    found, exact = train(low, LOW, 1, 30), train(full, FULL, 1, 30)
    apart = np.abs(np.divide(found, exact) - 1)
    assert 1e-7 < apart.max() <= RELATIVE_BOUND
    assert exact[-1] < 0.98 * exact[0]
    held = low.state()
    for part in (held.weights, held.first_moments, held.second_moments):
        assert {array.dtype.name for array in part.values()} == {"float32"}
    full.restore(held)  # and so judged in float32
    assert low.evaluate(batch(0, 5)) == full.evaluate(batch(0, 5))


@pytest.mark.parametrize("bias", [True, False])
def test_the_loss_of_both_sides_is_near_that_of_float32(bias: bool) -> None:
    generator = np.random.default_rng(0)
    states, weight = (generator.normal(size=s).astype(np.float32) for s in ((23, 7), (11, 7)))
    vector = generator.normal(size=11).astype(np.float32) if bias else None
    targets = generator.integers(0, 11, 23)

    def ours(dtype: str) -> list[np.ndarray]:
        leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (states, weight)]
        with products_in(dtype, "cpu"):
            held = None if vector is None else torch.from_numpy(vector)
            sides = *leaves, held, torch.from_numpy(targets), 0, 0.1
            loss = torch_loss.smoothed_cross_entropy(*sides)
        loss.backward()
        assert loss.dtype == torch.float32
        return [loss.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]

    def theirs(dtype: str) -> list[np.ndarray]:
        from flax_transformer.precision import products_in as flax_products_in

        def loss(states, weight):
            with flax_products_in(dtype):
                held = None if vector is None else jnp.asarray(vector)
                sides = states, weight, held, jnp.asarray(targets), 0, 0.1
                return flax_loss.smoothed_cross_entropy(*sides)

        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(states, weight)
        assert value.dtype == jnp.float32
        return [np.asarray(part) for part in (value, *gradients)]

    exact = ours("float32")
    for found in (ours("bfloat16"), theirs("bfloat16")):
        for low, full in zip(found, exact, strict=True):
            assert low.dtype == np.float32
            scale = np.abs(full).max()
            assert 0 < np.abs(low - full).max() <= 2e-2 * scale


def test_without_the_block_nothing_is_rounded() -> None:
    assert torch_factors(torch.ones(1))[0].dtype == torch.float32
    assert flax_factors(jnp.ones(1))[0].dtype == jnp.float32
    with products_in("float32", "cpu"):
        assert torch_factors(torch.ones(1))[0].dtype == torch.float32


def test_settings() -> None:
    formats = {name: TrainingSettings(dtype=name).weight_dtype for name in ("float32", "float64")}
    assert formats == {"float32": "float32", "float64": "float64"}
    assert TrainingSettings(dtype="bfloat16").weight_dtype == "float32"
