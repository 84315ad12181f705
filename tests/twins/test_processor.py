"""What JAX's programs do on a processor: memory that is used again, barriers that stay."""

import functools
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax._src.nn.functions as jax_functions
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.cpu import attention, gradients
from flax_transformer.cpu.products import in_memory, product
from flax_transformer.cpu.programs import OneAtATime

ROOT = Path(__file__).resolve().parents[2]
# Runs of a program that needs 64 MiB; the pages that the kernel clears for the last one.
RUNS = """
import resource, sys, time
from flax_transformer.cpu.programs import OneAtATime
from training_recipe.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import jax, jax.numpy as jnp

def needs_memory(x):
    return jax.lax.optimization_barrier(jnp.outer(x, x)).sum()

program, x = OneAtATime(needs_memory), jnp.ones(4096)
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    program(x).block_until_ready()
    time.sleep(0.05)  # until its memory is freed
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def cleared_pages(mode: str) -> int:
    command = [sys.executable, "-c", RUNS, mode]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.thorough
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_is_used_again() -> None:
    """Pages are of 4 KiB or, where the kernel likes huge ones, of 2 MiB."""
    assert cleared_pages("given back") > 20 + 10 * cleared_pages("kept")


def test_barriers_stay() -> None:
    def function(x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(x * 2) + 1

    x = jnp.arange(7.0)
    program = OneAtATime(function)
    assert "opt-barrier" in program.lower(x).compile().as_text()
    assert "opt-barrier" not in jax.jit(function).lower(x).compile().as_text()
    assert (program(x) == 2 * x + 1).all()
    assert (program(jnp.arange(3.0)) == jnp.array([1.0, 3.0, 5.0])).all()


@pytest.mark.parametrize("shapes", [((7, 3), (3, 5)), ((7, 5), (5, 3))])
@pytest.mark.usefixtures("float64")
def test_gradients_of_products(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    draw = np.random.default_rng(0)
    left, right = (jnp.asarray(draw.normal(size=shape)) for shape in shapes)
    weight = jnp.asarray(draw.normal(size=(len(left), right.shape[1])))
    found = jax.grad(lambda *pair: (product(*pair) * weight).sum(), (0, 1))(left, right)
    assert jnp.abs(found[0] - weight @ right.T).max() <= 1e-14
    assert jnp.abs(found[1] - left.T @ weight).max() <= 1e-14


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transposing_rounds_nothing(dtype: str) -> None:
    x = jnp.asarray(np.random.default_rng(2).normal(size=(13, 7)), dtype)
    assert in_memory(x).dtype == dtype and (in_memory(x) == x.T).all()


@pytest.mark.parametrize("shapes", [((700, 3), (3, 5)), ((700, 5), (5, 3))])
def test_products_of_bfloat16_are_summed_in_float32(shapes: tuple) -> None:
    """Gradients too, over 700 tokens: rounded once, at the end."""
    draw = np.random.default_rng(3)
    left, right = (jnp.asarray(draw.normal(size=shape), jnp.bfloat16) for shape in shapes)
    weight = jnp.asarray(draw.normal(size=(len(left), right.shape[1])), jnp.bfloat16)
    value, gradients = jax.vjp(product, left, right)
    low = value, *gradients(weight)
    left, right, weight = (np.asarray(array, np.float64) for array in (left, right, weight))
    exact = left @ right, weight @ right.T, left.T @ weight
    for found, truth in zip(low, exact, strict=True):
        assert found.dtype == jnp.bfloat16
        apart = np.abs(np.asarray(found, np.float64) - truth)
        assert (apart <= 2.0**-8 * np.abs(truth) + 1e-4).all()


def heads(dtype: str) -> tuple[jax.Array, ...]:
    """Queries, keys, values, and a mask in which some queries see one key alone."""
    draw = np.random.default_rng(3)
    q, k, v = (jnp.asarray(draw.normal(size=(2, 3, n, 5)), dtype) for n in (7, 11, 11))
    mask = jnp.asarray(draw.random((2, 1, 7, 11)) < 0.4)
    return q, k, v, mask.at[1, 0, 2].set(False).at[..., 4].set(True)


def with_gradients(
    attention: Callable,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    bias: jax.Array | None = None,
):
    def loss(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None):
        context = attention(q, k, v, mask, 0.3, bias)
        return (context * jnp.arange(5)).sum(), context

    gradients, context = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(q, k, v, bias)
    return [context, *jax.tree.leaves(gradients)]


def with_bias(dtype: str) -> tuple[jax.Array, ...]:
    """The same, and what is added to scores."""
    return *heads(dtype), jnp.asarray(np.random.default_rng(4).normal(size=(1, 3, 7, 11)), dtype)


def jax_own(*arguments: Any) -> jax.Array:
    """``jax.nn.dot_product_attention`` with a softmax of 64 bits."""
    with mock.patch.object(jax_functions.np, "float32", np.float64):
        return attention._own(*arguments)


@pytest.fixture(params=[heads, with_bias])
def arguments(request) -> Callable[[str], tuple[jax.Array, ...]]:
    """What attention is given in a number format."""
    return request.param


@pytest.mark.usefixtures("float64")
def test_attention_is_that_of_jax(arguments) -> None:
    """In float64, whose softmax JAX's own takes in float32 unless it is made not to."""
    ours = with_gradients(attention.attend, *arguments("float64"))
    theirs = with_gradients(jax_own, *arguments("float64"))
    assert len(ours) == len(theirs) == len(arguments("float64"))
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)) <= 1e-14
    rounded = with_gradients(attention._own, *arguments("float64"))
    assert float(jnp.abs(ours[0] - rounded[0]).max()) > 1e-9


@pytest.mark.usefixtures("float64")
def test_attention_off_processors_is_as_exact(arguments) -> None:
    exact = with_gradients(attention.attend, *arguments("float64"))
    for form in (attention._own, attention._written_out):
        found = with_gradients(form, *arguments("float32"))
        apart = max(float(jnp.abs(a - b).max()) for a, b in zip(exact, found, strict=True))
        assert apart <= 1e-5, form


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_platform_chooses_the_attention(platform: str) -> None:
    def products(form: Callable) -> list[str]:
        """Every product of the program and its gradient: both factors' shapes and the result's."""
        gradients = jax.jit(functools.partial(with_gradients, form))
        lowered = gradients.trace(*heads("float32")).lower(lowering_platforms=(platform,))
        lines = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
        return sorted(line.rpartition(" : ")[2] for line in lines)

    chosen, other = attention._written_out, attention._own
    if platform != "cpu":
        chosen, other = other, chosen
    assert len(products(attention.attend)) == 6
    assert products(attention.attend) == products(chosen) != products(other)


@pytest.mark.parametrize("name", ["softmax", "relu"])
@pytest.mark.usefixtures("float64")
def test_gradients_are_those_of_jax(name: str) -> None:
    draw = np.random.default_rng(1)
    x, weight = (jnp.asarray(draw.normal(size=(3, 5, 7))) for _ in range(2))
    x = x.at[0, 0, 0].set(0.0).at[1, 2].set(jnp.finfo(x.dtype).min).at[1, 2, 3].set(1.0)
    ours, theirs = getattr(gradients, name), getattr(jax.nn, name)
    assert (ours(x) == theirs(x)).all()
    found = jax.grad(lambda x: (ours(x) * weight).sum())(x)
    right = jax.grad(lambda x: (theirs(x) * weight).sum())(x)
    assert jnp.abs(found - right).max() <= 1e-15
