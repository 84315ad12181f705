"""A report as one file: a verdict for whoever opens it, every number for whoever asks further.

The page needs nothing but itself. What it says is in its HTML; the script sorts, filters and reads
the curves out.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from parity.comparison.report import Report
from parity.comparison.text import GRADIENT, spread_lines
from parity.forward.substeps import is_step
from parity.page.chart import chart, curves_of
from parity.page.environment import environment, repeating
from parity.page.markup import Markup, element, joined, verbatim
from parity.page.summary import difference, different_settings, header, notes
from parity.page.table import budget_table, rows_table
from training_recipe.files.writing import written_aside
from transformer_spec import UserError

FORMAT = "utf-8"


def write_page(report: Report, path: Path) -> Path:
    """Write a page that is whole or not there; its path.

    What cannot be written is a UserError.
    """
    if not os.path.isdir(path.parent):
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    content = page(report)
    with written_aside(path) as aside:
        aside.write_text(content, encoding=FORMAT)
    return path


def page(report: Report) -> str:
    """The HTML of a report."""
    style, script = (_part_of_page(name) for name in ("style.css", "script.js"))
    word = "PASS" if report.same else "FAIL"
    head = element(
        "head",
        element("meta", charset=FORMAT),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{word}: {report.a.given} and {report.b.given}"),
        verbatim("style", style),
    )
    parts = (
        header(report), difference(report), different_settings(report), notes(report),
        *curves(report), rounding(report), every_row(report), repeating(report),
        environment(report),
    )  # fmt: skip
    body = element("body", element("main", *parts), verbatim("script", script))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _part_of_page(name: str) -> str:
    return files("parity.page").joinpath(name).read_text(encoding=FORMAT)


def _policy(script: str) -> str:
    """Nothing is loaded from anywhere, and no script runs but the page's own."""
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def curves(report: Report) -> Iterator[Markup]:
    """A chart of the sub-steps and one of the gradients, of those that were compared."""
    places = {row.part: place for place, row in enumerate(report.rows, 1)}
    steps = [row for row in report.rows if is_step(row.part)]
    learned = [row for row in report.rows if row.part.startswith(GRADIENT)]
    charts = []
    if steps:
        drawn = curves_of(steps, report.budget)
        charts.append(chart("Sub-steps, from the embeddings to the logits", drawn, places))
    if learned:
        named = {part.removeprefix(GRADIENT): place for part, place in places.items()}
        rows = [replace(row, part=row.part.removeprefix(GRADIENT)) for row in learned]
        charts.append(chart("Gradients, weight by weight", curves_of(rows, {}), named))
    if charts:
        yield element("section", element("h2", "Largest differences"), *charts, class_="charts")


def rounding(report: Report) -> Markup | None:
    """What number formats do to the logits."""
    table = budget_table(report)
    if table is None:
        return None
    spread = (element("p", line) for line in spread_lines(report.budget))
    heading = element("h2", "What number formats do to the logits")
    return element("section", heading, table, *spread)


def every_row(report: Report) -> Markup:
    """The table, and what filters it where scripts run."""
    name = element("input", type="search", id="name", autocomplete="off", spellcheck="false")
    differs = element("input", type="checkbox", id="differs")
    controls = element(
        "form",
        element("label", element("span", "name"), name),
        element("label", differs, element("span", "only what differs"), class_="check"),
        element("p", id="shown", role="status"),
        class_="controls", id="controls", hidden=True,
    )  # fmt: skip
    heading = element("h2", "Everything that was compared")
    return element("section", heading, joined((controls, rows_table(report))))
