"""The bottom of a page: what was asked for, how to ask again, with what the page was written."""

from __future__ import annotations

import importlib.metadata
import json
from datetime import UTC, datetime
from typing import Any

from parity.certificates.certificate import machine
from parity.comparison.report import Report
from parity.page.command import command_of
from parity.page.markup import Markup, element
from parity.page.numbers import shape
from parity.page.table import terms
from training_recipe.runs.record import library_versions

ALSO = "twinformer", "transformers"


def repeating(report: Report) -> Markup:
    """The command that compares again."""
    command = element("code", command_of(report), id="command")
    return element(
        "section",
        element("h2", "To compare again"),
        element("pre", command, tabindex="0"),
    )


def environment(report: Report) -> Markup:
    """Inputs and settings, libraries and machine."""
    where = machine(report)
    devices = {f"{side.upper()} on": name for side, name in where["devices"].items()}
    made = {
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "system": where["system"],
        "processor": f"{where['processor']}, {where['cores']} cores",
        **devices,
    }
    return element(
        "section",
        element("h2", "Settings and environment"),
        _part("Inputs and settings", terms(inputs(report) | settings(report))),
        _part("Written on", terms(made)),
        _part("Written with", terms(versions())),
        _part(f"Config of B, {len(report.config)} settings", terms(plainly(report.config))),
        class_="environment",
    )  # fmt: skip


def _part(title: str, content: Markup) -> Markup:
    return element("section", element("h3", title), content)


def inputs(report: Report) -> dict[str, list[str]]:
    """The shapes of source and target of every batch."""
    shapes = [f"source {shape(one)}, target {shape(two)}" for one, two in report.batches]
    return {"batches": shapes}


def settings(report: Report) -> dict[str, str]:
    """Every setting that has a value."""
    given = report.settings.to_dict().items()
    held = {name: value for name, value in given if value not in (None, (None, None))}
    return {name.replace("_", " "): value for name, value in plainly(held).items()}


def plainly(values: Any) -> dict[str, str]:
    """Values as JSON has them, lists without brackets and text without quotation marks."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(_plain, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def versions() -> dict[str, str]:
    """The libraries that are installed here."""
    found = library_versions()
    for name in ALSO:
        try:
            found = {name: importlib.metadata.version(name), **found}
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
