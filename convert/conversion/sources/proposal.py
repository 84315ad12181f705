"""A table of names for a checkpoint: the one that comes with the program, or a proposed one."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.checkpoints.folders.location import locate
from convert.checkpoints.layouts import OWN_LAYERS
from convert.checkpoints.reading import open_content
from convert.checkpoints.states.encodings import check_names
from convert.conversion.request import SourceRequest
from convert.conversion.sources.source import check_has_weights, leave_out, source_of, wrapping_of
from convert.families.base import Family, Source
from convert.families.registry import FAMILIES, TABLES
from convert.naming.guessing.whole import propose
from convert.naming.matching import Match
from convert.naming.proposal import Proposal
from convert.naming.shipped import table_text
from convert.naming.table import HALVES
from training_recipe.files.writing import make_parent, written_aside
from transformer_spec import Faults, UserError
from transformer_spec.errors import printable_name

FILE, CONVERTED = "mine.toml", "CONVERTED"
UNUSABLE = re.compile(r"[^a-z0-9._-]+")
FILES = (("pt", "safetensors"), ("msgpack", "orbax"))


@dataclass(frozen=True)
class Naming:
    """A checkpoint's table of names as text, and how it was come by.

    ``family`` is whose names they are where that is known, ``proposal`` what is proposed where it
    is not. A family that reads its names without a table has no ``text``.
    """

    source: Path
    family: str | None
    proposal: Proposal | None
    text: str | None
    told: str


def find_naming(request: SourceRequest, output: Path | None = None) -> Naming:
    """The table for a checkpoint by its headers alone, also written to ``output``.

    A checkpoint that is no encoder-decoder, and a file that is there already, are a UserError.
    """
    _check(request, output)
    source, container = _opened(request)
    family = _family_of(source)
    if family is None:
        found = _proposed(request, source, container, output)
    else:
        found = _known(request, family, output)
    if output is not None and found.text is not None:
        make_parent(output)
        with written_aside(output) as aside:
            aside.write_text(found.text, encoding="utf-8")
    return found


def _check(request: SourceRequest, output: Path | None) -> None:
    faults = Faults()
    told = request.family or request.names
    faults.require(told is None, f"{told} says whose names they are; leave --from and --names out")
    there = output is not None and output.exists()
    faults.require(not there, f"{output} exists already; name a new file")
    faults.raise_if_any("no table is written")


def _opened(request: SourceRequest) -> tuple[Source, str]:
    """The weights of a checkpoint, as a family sees them, and the container of its file."""
    located = locate(request.source)
    opened = open_content(located.weights, request.key, False)
    check_names(opened.tensors, opened.tensors.label)
    check_has_weights(opened, located)
    content, _ = leave_out(opened, request.drop, False)
    return source_of(content, request, wrapping_of(content, request)), content.container


def _family_of(source: Source) -> str | None:
    """Whose names these are; a class inside a module of the user's has no say in the rest."""
    if any(name.startswith(OWN_LAYERS) for name in source.tensors):
        return "twinformer"
    fitting = [family for family in FAMILIES.values() if _recognizes(family, source)]
    tables = [family for family in fitting if family.name in TABLES]
    return next((family.name for family in tables or fitting), None)


def _recognizes(family: Family, source: Source) -> bool:
    return not family.wrapped and family.recognizes(source)


def _known(request: SourceRequest, family: str, output: Path | None) -> Naming:
    """A family that is known: its table where it is one."""
    told = f"{printable_name(request.source)} has the names of {family}"
    if family not in TABLES:
        if output is not None:
            raise UserError(f"{told}, which needs no table: convert it without --names")
        told = f"{told}, which needs no table:\n  {_command(request, f'--from {family}')}"
        return Naming(request.source, family, None, None, told)
    told = f"{told}, a table that comes with the program"
    text = f"# {told}.\n{table_text(family)}"
    return Naming(request.source, family, None, text, told)


def _proposed(
    request: SourceRequest, source: Source, container: str, output: Path | None
) -> Naming:
    """A proposal, which covers the checkpoint or says what it leaves open."""
    label, fields = printable_name(request.source.name), request.given_fields()
    found = _named(propose(source.tensors, label, fields, _containers(container)), output)
    holes = found.holes or tuple(_uncovered(found, source))
    found = dataclasses.replace(found, holes=holes)
    heading = _heading(request, found, output)
    found = dataclasses.replace(found, heading=heading)
    return Naming(request.source, None, found, found.text, "\n".join(heading))


def _containers(container: str) -> list[str]:
    """What a module's checkpoint may be written in, that of this one first."""
    usual = next((kinds for kinds in FILES if container in kinds), FILES[0])
    return sorted(usual, key=lambda one: one != container)


def _named(found: Proposal, output: Path | None) -> Proposal:
    """The proposal with the name of its file, where that can be one."""
    name = UNUSABLE.sub("-", output.stem.lower()).strip("-._") if output else ""
    taken = name in FAMILIES or not name
    content: Mapping[str, Any] = {**found.content, "name": "mine" if taken else name}
    return dataclasses.replace(found, content=content)


def _uncovered(found: Proposal, source: Source) -> list[str]:
    """What the table does not say of the checkpoint."""
    table = found.table()
    kinds = {half: table.config.get(f"{half}_positions") for half in HALVES}
    tied = str(table.config.get("tied_embeddings", "none"))
    return Match(table.storing_positions(kinds), source.tensors, tied).faults.messages


def _heading(request: SourceRequest, found: Proposal, output: Path | None) -> list[str]:
    """What a table says of itself before its lines."""
    path = shlex.quote(str(output or FILE))
    lines = [
        f"A proposed table of the names in {printable_name(request.source)}. {found.guesses} lines "
        "are guesses",
        "and say so: shapes cannot tell squares of one shape apart, and no weight shows what a",
        "module computes. A guess converts nothing: look at each, then convert with this table",
        "and let the proof judge, against the module itself (make() returns it with its weights):",
        f"  {_command(request, f'--names {path}')}",
        f'  python -m parity "module:their_file.py:make" {CONVERTED}',
    ]
    if not found.holes:
        return [*lines, ""]
    told = "Without a place, or without a tensor, and to be filled or put under [unused] by hand:"
    return [*lines, "", told, *(f"  {hole}" for hole in found.holes), ""]


def _command(request: SourceRequest, rest: str) -> str:
    return f"python -m convert {shlex.quote(str(request.source))} {CONVERTED} --to torch {rest}"
