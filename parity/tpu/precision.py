"""What a traced program asks for: its matrix products, and everything less than float32.

Judged on the traced program (jaxpr), which names every product with its precision before a compiler
sees it. On a TPU ``highest`` is six bfloat16 passes, which is float32, ``high`` three, ``default``
one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn

from parity.forward.one_pass import PRODUCTS, every_equation

FULL = "highest"
# Kernels and callbacks: what they compute is in no traced program.
OPAQUE = (
    "pallas_call",
    "ffi_call",
    "custom_call",
    "tpu_custom_call",
    "pure_callback",
    "io_callback",
)


@dataclass(frozen=True)
class Asked:
    """What a program asks for; ``faults`` are what is less than float32.

    Products are counted by kind, as "float32[60,512] x float32[512,512] highest"; ``flops`` are
    the operations of all of them.
    """

    products: dict[str, int]
    flops: int
    faults: tuple[str, ...]

    @property
    def count(self) -> int:
        return sum(self.products.values())


def asked(jaxpr: Jaxpr) -> Asked:
    """Of a loop whose number of turns depends on data, one turn counts."""
    kinds: Counter[str] = Counter()
    flops, faults = 0, []
    for equation, turns in every_equation(jaxpr, platform="tpu"):
        if equation.primitive.name in PRODUCTS:
            kinds[kind_of(equation)] += 1
            flops += turns * operations(equation)
        faults += faults_of(equation)
    found = (f"{fault}{f' ({n} times)' if n > 1 else ''}" for fault, n in Counter(faults).items())
    return Asked(dict(kinds), flops, tuple(found))


def faults_of(equation: JaxprEqn) -> Iterator[str]:
    """Why an equation is not of float32; sums and products of integers are exact."""
    name = equation.primitive.name
    if name in OPAQUE:
        yield f"a call of {name}, which the traced program does not show: it may multiply"
    if name == "reduce_precision":
        yield "numbers are rounded (reduce_precision)"
    if name in PRODUCTS and is_float(shape_of(equation.outvars[0]).dtype):
        if precision_of(equation) != FULL:
            yield f"a product at precision {precision_of(equation)}, not {FULL}"
    for kind in dict.fromkeys(str(shape_of(x).dtype) for x in equation.outvars if narrow(x)):
        yield f"{name} makes numbers of type {kind}"


def shape_of(variable: Any) -> Any:
    """Shape and number format of an equation's input or result."""
    return variable.aval


def narrow(variable: Any) -> bool:
    dtype = getattr(variable.aval, "dtype", None)
    return dtype is not None and is_float(dtype) and dtype.itemsize < 4


def is_float(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def kind_of(equation: JaxprEqn) -> str:
    shapes = map(shape_of, equation.invars[:2])
    kinds = (f"{one.dtype}{list(one.shape)}".replace(" ", "") for one in shapes)
    return f"{' x '.join(kinds)} {precision_of(equation)}"


def precision_of(equation: JaxprEqn) -> str:
    given = equation.params["precision"]
    pair = given if isinstance(given, tuple) else (given, given)
    return "/".join(dict.fromkeys(str(entry or "default").lower() for entry in pair))


def operations(equation: JaxprEqn) -> int:
    """Multiplications and additions of a product: two for each term of each sum."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    terms = math.prod(shape_of(equation.invars[0]).shape[axis] for axis in contracted)
    return 2 * terms * shape_of(equation.outvars[0]).size
