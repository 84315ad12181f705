"""What one bfloat16 pass per matrix product does, emulated: the default of a TPU for float32.

A TPU multiplies float32 matrices in bfloat16 unless told otherwise: it rounds both operands to
bfloat16 (to nearest, ties to even) and sums the products in float32. Here every product of a traced
function is rewritten so, which no product escapes, whichever line of the model it comes from.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

PRODUCTS = ("dot_general", "conv_general_dilated")
# Calls that are opened: how they are differentiated is never asked for.
CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2")
BFLOAT16_EXPONENT, BFLOAT16_MANTISSA = 8, 7


def one_pass_bfloat16(function: Callable) -> Callable:
    """``function`` of arrays with both operands of every matrix product rounded to bfloat16.

    Products are summed in their operands' own format, float32 as on a TPU. Arguments and results
    are pytrees of arrays. The result cannot be differentiated (TypeError), because the products
    of a derivative would not be rounded: rewrite the derivative, one_pass_bfloat16(jax.grad(f)).
    """

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)

        def flat(*leaves: Array) -> Any:
            return function(*jax.tree.unflatten(tree, leaves))

        closed, shape = jax.make_jaxpr(flat, return_shape=True)(*leaves)
        outputs = jax.jit(_not_differentiable(functools.partial(evaluate, closed)))(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return run


def round_to_bfloat16(x: Array) -> Array:
    """The nearest bfloat16 number, ties to even, in the format of ``x``; 16 bits and integers stay.

    Not by conversion there and back, which XLA may leave out.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize <= 2:
        return x
    return jax.lax.reduce_precision(x, BFLOAT16_EXPONENT, BFLOAT16_MANTISSA)


def every_equation(
    jaxpr: Jaxpr, turns: int = 1, platform: str | None = None
) -> Iterator[tuple[JaxprEqn, int]]:
    """Every equation of a traced function, also of the functions in it, and how often it runs.

    Of a loop whose number of turns depends on data, as the decoding loop's does, one turn counts.
    Of a choice by platform all branches count, or that of ``platform`` alone.
    """
    for equation in jaxpr.eqns:
        yield equation, turns
        inner_turns = turns * equation.params.get("length", 1) if _is_scan(equation) else turns
        for inner in _inner(_of_platform(equation.params, platform)):
            yield from every_equation(inner, inner_turns, platform)


def _of_platform(params: dict[str, Any], platform: str | None) -> dict[str, Any]:
    """The parameters of an equation with the one branch that a platform takes."""
    choices = params.get("branches_platforms")
    if platform is None or choices is None:
        return params
    taken = next(i for i, names in enumerate(choices) if names is None or platform in names)
    return params | {"branches": params["branches"][taken : taken + 1]}


def every_product(jaxpr: Jaxpr) -> Iterator[tuple[JaxprEqn, int]]:
    """Every matrix product of a traced function and how often it runs."""
    return ((e, n) for e, n in every_equation(jaxpr) if e.primitive.name in PRODUCTS)


def evaluate(closed: ClosedJaxpr, *arguments: Array) -> list[Array]:
    """Run a traced function with rounded products."""
    jaxpr = closed.jaxpr
    held = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    held |= dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        inputs = [_value(held, atom) for atom in equation.invars]
        held |= dict(zip(equation.outvars, _run(equation, inputs), strict=True))
    return [_value(held, atom) for atom in jaxpr.outvars]


def _run(equation: JaxprEqn, inputs: list[Array]) -> list[Array]:
    """The results of one equation."""
    name, params = equation.primitive.name, equation.params
    if name in PRODUCTS:
        params = params | {"precision": (jax.lax.Precision.HIGHEST,) * 2}
        inputs = [round_to_bfloat16(x) for x in inputs[:2]] + inputs[2:]
    elif name in CALLS:
        return evaluate(_called(params), *inputs)
    elif any(True for inner in _inner(params) for _ in every_product(inner)):
        params = {key: _rewritten(value) for key, value in params.items()}
    outputs = equation.primitive.bind(*inputs, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _called(params: dict[str, Any]) -> ClosedJaxpr:
    """What a call runs."""
    return _closed(params.get("jaxpr") or params["call_jaxpr"])


def _rewritten(value: Any) -> Any:
    """A parameter of an equation with the functions in it rewritten."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_rewritten, value)) if any(map(_is_function, value)) else value
    if not _is_function(value):
        return value
    closed = _closed(value)
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.in_avals]
    made = jax.make_jaxpr(functools.partial(evaluate, closed))(*shapes)
    return made if isinstance(value, ClosedJaxpr) else made.jaxpr


def _not_differentiable(function: Callable) -> Callable:
    run = jax.custom_jvp(function)

    def refuse(primals: Any, tangents: Any) -> Any:
        raise TypeError(
            "one_pass_bfloat16(f) cannot be differentiated: the products of its derivative would "
            "not be rounded; use one_pass_bfloat16(jax.grad(f))"
        )

    run.defjvp(refuse)
    return run


def _value(held: dict[Any, Array], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else held[atom]


def _is_function(value: Any) -> bool:
    return isinstance(value, (Jaxpr, ClosedJaxpr))


def _is_scan(equation: JaxprEqn) -> bool:
    return equation.primitive.name == "scan"


def _closed(value: Any) -> ClosedJaxpr:
    return value if isinstance(value, ClosedJaxpr) else ClosedJaxpr(value, ())


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The functions among an equation's parameters."""
    for value in params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if _is_function(entry):
                yield _closed(entry).jaxpr
