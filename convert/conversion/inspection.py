"""What a checkpoint is, from its headers alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.checkpoints.content import Content
from convert.checkpoints.folders.location import Located, locate
from convert.checkpoints.reading import open_content
from convert.checkpoints.records import tensor_record
from convert.checkpoints.states.encodings import check_names
from convert.conversion.conversion import in_bytes
from convert.conversion.request import SourceRequest
from convert.conversion.side_files.beside import Beside
from convert.conversion.side_files.made_files import plan_files
from convert.conversion.sources.changed_files import changed_files
from convert.conversion.sources.source import (
    Import,
    Moments,
    check_has_weights,
    choose_family,
    leave_out,
    lost_optimizer,
    read_import,
    source_of,
    wrapping_of,
)
from convert.conversion.target import Target
from convert.core.operations import Duplicate, Reversed
from convert.core.tensors import Header, Subset, dtype_name
from convert.files.account import FilesPlan
from transformer_spec import TransformerConfig, UserError
from transformer_spec.errors import printable_name

OUR_TARGET = Target("torch", "safetensors")


@dataclass(frozen=True)
class Amount:
    """A number of tensors and of their bytes."""

    tensors: int
    bytes: int


@dataclass(frozen=True)
class Weights(Amount):
    """All weights, and those of each number format."""

    dtypes: Mapping[str, Amount]


@dataclass(frozen=True)
class Inspection:
    """What there is, and as much of what it means as names and settings tell.

    ``family`` and ``config`` are None where they are not known; ``fault`` says then why. ``ties``
    are names in the source that are said to be one tensor. ``files`` tells of each file of the
    folder what becomes of it in a folder of ours. ``unread`` says of an optimizer that is there why
    ``optimizer`` is None.
    """

    path: Path
    kind: str
    container: str
    family: str | None
    weights: Weights
    optimizer: Moments | None
    ties: list[list[str]]
    config: TransformerConfig | None
    fault: str | None
    notes: list[str]
    tensors: Mapping[str, Header]
    files: FilesPlan = field(default_factory=FilesPlan)
    unread: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        plain = dataclasses.asdict(dataclasses.replace(self, tensors={}, files=FilesPlan()))
        tensors = {name: header.to_json() for name, header in self.tensors.items()}
        files = {"files": self.files.to_json()}
        return plain | {"path": str(self.path), "tensors": tensors} | files

    @property
    def text(self) -> str:
        """The report for people: what it is, then a line for each tensor."""
        lines = [f"{name:<10} {value}" for name, value in self._heading()]
        tensors = {printable_name(name): header for name, header in self.tensors.items()}
        width = max(map(len, tensors), default=0)
        lines += [""] if tensors else []
        for name, header in tensors.items():
            shape = "x".join(map(str, header.shape)) or "scalar"
            lines.append(f"{name:<{width}}  {dtype_name(header.dtype):<9} {shape}")
        return "\n".join(lines)

    def _heading(self) -> list[tuple[str, str]]:
        weights, optimizer = self.weights, self.optimizer
        kinds = ", ".join(f"{amount.tensors} {kind}" for kind, amount in weights.dtypes.items())
        lines = [
            (self.kind, f"{printable_name(self.path)} ({self.container})"),
            ("family", self.family or "not known"),
            ("weights", f"{weights.tensors} tensors, {in_bytes(weights.bytes)} ({kinds})"),
        ]
        fresh = self.unread or "none: an optimizer starts fresh"
        told = optimizer and f"moments after {optimizer.steps} steps, {in_bytes(optimizer.bytes)}"
        lines += [("optimizer", told or fresh)]
        lines += [("tied", " = ".join(map(printable_name, names))) for names in self.ties]
        config = self.config.to_dict().items() if self.config else ()
        fields = " ".join(f"{name}={value}" for name, value in config)
        lines += [("config", fields or f"not known: {self.fault}")]
        lines += [("note", note) for note in self.notes]
        return lines + [("file", entry.text) for entry in self.files.entries]


def inspect(request: SourceRequest) -> Inspection:
    """Open and recognize; a file that cannot be opened is a UserError, an unknown one is not."""
    located = locate(request.source)
    beside = Beside.of(located, hashed=False)
    request = dataclasses.replace(request, verify=False)  # headers alone are read
    opened = open_content(located.weights, request.key, request.verify)
    content, _ = leave_out(opened, request.drop, request.optimizer)
    family, found, fault = None, None, None
    try:
        check_names(content.tensors, content.tensors.label)
        check_has_weights(opened, located)
        source = source_of(content, request, wrapping_of(content, request))
        chosen = choose_family(request, source)
        family = chosen.name if chosen else f"twinformer {content.layout.twin}"
        found = read_import(request, located)
    except UserError as error:
        fault = str(error)
    files = plan_files(found, OUR_TARGET, None, beside) if found else FilesPlan()
    notes = [*found.notes, *files.notes] if found else _notes(content)
    moments = Moments.of(found.content if found else content)
    names = [content.layout.weights + n for n in content.layout.weight_names(content.tensors)]
    return Inspection(
        path=located.name,
        kind=located.kind,
        container=content.container,
        family=family,
        weights=_weights(Subset(content.tensors, names)),
        optimizer=moments,
        ties=_ties(found),
        config=found.config if found else None,
        fault=fault,
        notes=notes + _changes(located, opened),
        tensors=dict(opened.tensors),
        files=files,
        unread=None if found or moments else _unread(content, family),
    )


def _notes(content: Content) -> list[str]:
    return [*content.notes, *([content.unread] if content.unread else [])]


def _unread(content: Content, family: str | None) -> str | None:
    """Why an optimizer's state that is there was not read; None where there is none."""
    if content.optimizer is None and not content.unread:
        return None
    return f"there is one, not read while the {'config' if family else 'family'} is not known"


def _changes(located: Located, content: Content) -> list[str]:
    """What is not as it was written, as far as it is known without reading tensors."""
    changed = changed_files(located.home) if located.home else []
    try:
        lost = lost_optimizer(content, located.weights, tensor_record(located.weights))
    except UserError as error:
        return [*changed, str(error)]
    return [*changed, *([lost] if lost else [])]


def _ties(found: Import | None) -> list[list[str]]:
    pairs = [(rule.operation, rule.sources) for rule in (found.rules if found else [])]
    return [
        list(names)
        for operation, names in pairs
        if isinstance(operation, Reversed) and isinstance(operation.operation, Duplicate)
    ]


def _weights(tensors: Mapping[str, Header]) -> Weights:
    by_dtype: dict[str, list[int]] = {}
    for header in tensors.values():
        by_dtype.setdefault(dtype_name(header.dtype), []).append(header.size)
    amounts = {dtype: Amount(len(sizes), sum(sizes)) for dtype, sizes in by_dtype.items()}
    return Weights(len(tensors), sum(header.size for header in tensors.values()), amounts)
