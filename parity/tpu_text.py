"""The text of an optimized program (HLO), instruction by instruction."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+)")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
OPERATION = re.compile(r"\s([a-z][\w\-]*)\(")
TYPE = re.compile(r"\b([a-z]\w*)(\[[\d,<=]*\])")
NAME = re.compile(r"%([\w.\-]+)")
INDEX = re.compile(r"\bindex=(\d+)")
CALLS = re.compile(r"\bcalls=%?([\w.\-]+)")
SOURCE = re.compile(r'op_name="([^"]*)"')
NARROW = re.compile(r"bf16|f16|f8\w*|f4\w*")


class Instruction(NamedTuple):
    """One line: ``rest`` is what follows the operation's opening bracket, without metadata."""

    name: str
    types: list[str]
    is_tuple: bool
    operation: str
    rest: str
    source: str
    computation: str
    is_root: bool


def instructions(text: str) -> Iterator[Instruction]:
    """Every instruction of every computation; types are written as f32[256,512]."""
    computation = ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            computation = _first(COMPUTATION, line)
        matched = INSTRUCTION.match(line)
        if matched is None:
            continue
        root, name, made = matched.groups()
        written, _, _ = made.partition(", metadata=")
        operation = OPERATION.search(written)
        if operation is None:
            continue
        kinds = ["".join(pair) for pair in TYPE.findall(written[: operation.start()])]
        rest, source = written[operation.end() :], _first(SOURCE, made)
        yield Instruction(
            name, kinds, made.startswith("("), operation[1], rest, source, computation, bool(root)
        )


def element(written: str) -> str:
    """The format of the numbers of a type: f32 of f32[256,512]."""
    return written.partition("[")[0]


def narrow_results(found: Iterable[Instruction]) -> Iterator[tuple[Instruction, str]]:
    """Instructions that make numbers of 16 bits or fewer which somebody reads, and their format.

    The compiler narrows what nobody reads: of an argmax, the maximum that goes with the index.
    """
    found = list(found)
    read = _elements_read(found)
    fused = {_first(CALLS, one.rest) for one in found}
    for one in found:
        formats = [element(kind) for kind in one.types]
        narrow = [i for i, name in enumerate(formats) if NARROW.fullmatch(name)]
        if one.is_tuple:
            if one.is_root and one.computation in fused:
                continue  # the instruction that calls has the same results and is judged itself
            every = None in read[one.name] or one.is_root
            narrow = [i for i in narrow if every or i in read[one.name]]
        if narrow:
            yield one, formats[narrow[0]]


def _elements_read(found: list[Instruction]) -> dict[str, set[int | None]]:
    """Which elements of each result are read; None stands for all of them."""
    read: dict[str, set[int | None]] = defaultdict(set)
    for one in found:
        picked = INDEX.search(one.rest) if one.operation == "get-tuple-element" else None
        for name in NAME.findall(one.rest):
            read[name].add(int(picked[1]) if picked else None)
    return read


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
