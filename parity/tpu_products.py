"""The matrix products of a program that the TPU compiler made, and the precision of each.

Read from the optimized program's text (HLO). There the compiler writes products as ``convolution``
(and ``dot``, where one is left), and what becomes of float32 operands as ``operand_precision``:

    absent, or default    one bfloat16 pass
    {high,high}           three bfloat16 passes
    {highest,highest}     six bfloat16 passes, which is float32

The passes themselves are below this text. That these are their numbers shows in a program that
asks for them by name: the algorithm BF16_BF16_F32_X6 comes out as highest, X3 as high.
Products of a vector become multiplications and sums in float32 and are no products any more.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from parity.tpu_text import TYPE, Instruction, element, instructions, narrow_results

PRODUCTS = ("convolution", "dot", "ragged-dot")
FULL = ("highest", "highest")
EXACT_TYPES = ("f32", "f64")
# Calls into the compiler's own code that choose or move numbers and multiply none.
KNOWN_CALLS = (
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "GatherScatterIndicesBitpacked",
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "TopK",
)

OPERAND = re.compile(r"(?:\w+\[[\d,<=]*\]\S* )?%?[\w.\-]+")
PRECISION = re.compile(r"operand_precision=\{(\w+),\s*(\w+)\}")
ALGORITHM = re.compile(r"algorithm=(\w+)")
CALL = re.compile(r'custom_call_target="([^"]*)"')


class Product(NamedTuple):
    """One matrix product; types are those of HLO, as f32[256,512]."""

    name: str
    result: str
    operands: tuple[str, str]
    precision: tuple[str, str]
    source: str

    @property
    def fault(self) -> str | None:
        """Why this is no float32 product, or None; products of integers are exact."""
        types = [element(entry) for entry in (self.result, *self.operands)]
        if all(entry[0] in "su" for entry in types):
            return None
        narrow = [entry for entry in types if entry not in EXACT_TYPES]
        if narrow:
            return f"works in {', '.join(dict.fromkeys(narrow))}, not in f32"
        if self.precision != FULL:
            return f"operand precision {','.join(self.precision)}, not highest"
        return None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        fields = self._asdict() | {"operands": list(self.operands)}
        return fields | {"precision": list(self.precision), "fault": self.fault}


def products(text: str) -> list[Product]:
    """Every matrix product of an optimized program, in the text's order."""
    found: list[Product] = []
    types: dict[tuple[str, str], str] = {}  # names belong to their computation
    for one in instructions(text):
        types[one.computation, one.name] = one.types[0] if one.types else "?"
        if one.operation in PRODUCTS:
            found.append(_product(one, types))
    return found


def _product(one: Instruction, types: dict[tuple[str, str], str]) -> Product:
    first, second = OPERAND.findall(one.rest.partition(")")[0])[:2]
    operands = _operand(first, one, types), _operand(second, one, types)
    precision, algorithm = PRECISION.search(one.rest), ALGORITHM.search(one.rest)
    pair = (precision[1], precision[2]) if precision else ("default", "default")
    if algorithm is not None:
        pair = (algorithm[1], algorithm[1])
    return Product(one.name, one.types[0], operands, pair, one.source)


def _operand(text: str, one: Instruction, types: dict[tuple[str, str], str]) -> str:
    """The type of an operand: written before its name, or where it was made; ? where unknown."""
    written = TYPE.match(text)
    name = text.split()[-1].lstrip("%")
    return "".join(written.groups()) if written else types.get((one.computation, name), "?")


def faults(text: str) -> list[str]:
    """Everything in an optimized program that is less than float32, or cannot be judged."""
    found = list(instructions(text))
    return [
        *(f"{p.name} ({p.source}): {p.fault}" for p in products(text) if p.fault is not None),
        *(f"{one.name}: numbers of type {kind}" for one, kind in narrow_results(found)),
        *(
            f"{one.name}: rounds its numbers (reduce-precision)"
            for one in found
            if one.operation == "reduce-precision"
        ),
        *_unknown_calls(found),
    ]


def _unknown_calls(found: Iterable[Instruction]) -> Iterator[str]:
    targets = [CALL.search(one.rest) for one in found if one.operation == "custom-call"]
    for target in dict.fromkeys(target[1] for target in targets if target):
        if target not in KNOWN_CALLS:
            yield f"a call of {target}, which this text does not show: it may multiply"
