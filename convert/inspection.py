"""``python -m convert inspect``: what a checkpoint is, from its headers alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from convert.folders import Content, Located, locate, open_content
from convert.importing import Import, choose_family, read_import, source_of
from convert.rules import Duplicate, Reversed
from convert.tensors import Header, Subset
from transformer_spec import UserError


@dataclass(frozen=True)
class Inspection:
    """What there is, and as much of what it means as names and settings tell.

    ``found`` is None where the config is not known; ``fault`` says then why.
    """

    located: Located
    content: Content
    family: str | None
    found: Import | None
    fault: str | None


def inspect(options: argparse.Namespace) -> str:
    """The report on a checkpoint, as text or as JSON."""
    report = describe(examine(options))
    return json.dumps(report, indent=2) if options.json else as_text(report)


def examine(options: argparse.Namespace) -> Inspection:
    """Open and recognize; a file that cannot be opened is a UserError, an unknown one is not."""
    located = locate(options.source)
    content = open_content(located.weights, options.key)
    family, found, fault = None, None, None
    try:
        chosen = choose_family(options.family, source_of(content, options))
        family = chosen.name if chosen else f"twinformer {content.layout.twin}"
        found = read_import(options)
    except UserError as error:
        fault = str(error)
    return Inspection(located, content, family, found, fault)


def describe(inspection: Inspection) -> dict[str, Any]:
    """The report as plain data."""
    content, found = inspection.content, inspection.found
    weights = content.layout.weight_names(content.tensors)
    weights = [content.layout.weights + name for name in weights]
    return {
        "path": str(inspection.located.weights),
        "kind": inspection.located.kind,
        "container": content.container,
        "family": inspection.family,
        "weights": _sums(Subset(content.tensors, weights)),
        "optimizer": _optimizer(content),
        "ties": ties(found),
        "config": found.config.to_dict() if found else None,
        "fault": inspection.fault,
        "notes": found.notes if found else [],
        "tensors": {name: _described(header) for name, header in content.tensors.items()},
    }


def ties(found: Import | None) -> list[list[str]]:
    """Names in the source that are said to be one tensor."""
    pairs = [(rule.operation, rule.sources) for rule in (found.rules if found else [])]
    return [
        list(names)
        for operation, names in pairs
        if isinstance(operation, Reversed) and isinstance(operation.operation, Duplicate)
    ]


def _sums(tensors: Mapping[str, Header]) -> dict[str, Any]:
    by_dtype: dict[str, dict[str, int]] = {}
    for header in tensors.values():
        entry = by_dtype.setdefault(str(header.dtype), {"tensors": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["bytes"] += header.size
    size = sum(header.size for header in tensors.values())
    return {"tensors": len(tensors), "bytes": size, "dtypes": by_dtype}


def _optimizer(content: Content) -> dict[str, Any] | None:
    names = [name for name in content.tensors if name.startswith(content.layout.training)]
    if not names:
        return None
    return {"steps": content.count, "bytes": Subset(content.tensors, names).size}


def _described(header: Header) -> dict[str, Any]:
    return {"dtype": str(header.dtype), "shape": list(header.shape), "bytes": header.size}


def as_text(report: Mapping[str, Any]) -> str:
    """The report for people: what it is, then a line for each tensor."""
    lines = [f"{name:<10} {value}" for name, value in _heading(report)]
    width = max((len(name) for name in report["tensors"]), default=0)
    lines += [""] if report["tensors"] else []
    for name, entry in report["tensors"].items():
        shape = "x".join(map(str, entry["shape"])) or "scalar"
        lines.append(f"{name:<{width}}  {entry['dtype']:<9} {shape}")
    return "\n".join(lines)


def _heading(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    sums, optimizer = report["weights"], report["optimizer"]
    kinds = ", ".join(f"{n['tensors']} {d}" for d, n in sums["dtypes"].items())
    fresh = "none: an optimizer starts fresh"
    lines = [
        (report["kind"], f"{report['path']} ({report['container']})"),
        ("family", report["family"] or "not known"),
        ("weights", f"{sums['tensors']} tensors, {_bytes(sums['bytes'])} ({kinds})"),
        (
            "optimizer",
            f"moments after {optimizer['steps']} steps, {_bytes(optimizer['bytes'])}"
            if optimizer
            else fresh,
        ),
    ]
    lines += [("tied", " = ".join(names)) for names in report["ties"]]
    if report["config"]:
        lines += [("config", _settings(report["config"]))]
    else:
        lines += [("config", f"not known: {report['fault']}")]
    return lines + [("note", note) for note in report["notes"]]


def _settings(config: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in config.items())


def _bytes(size: int) -> str:
    return tqdm.format_sizeof(size, "B")
