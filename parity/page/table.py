"""The table of every row, and the smaller tables of a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from parity.comparison.report import Report, Row
from parity.comparison.text import shown
from parity.page.markup import Markup, element
from parity.page.numbers import number, shape, share
from parity.page.shapes import Shape, shapes

ASCENDING, DESCENDING = "ascending", "descending"
FIRST = "first"  # the anchor of the first row to differ
Cell = str | Markup


def rows_table(report: Report) -> Markup:
    """Every row in the order in which it was computed; scripts sort and filter it."""
    formats = list(dict.fromkeys(name for row in report.rows for name in row.errors))
    sizes, first = shapes(report), first_to_differ(report)
    body = [
        _row(place, row, sizes[row.part], formats, row is first)
        for place, row in enumerate(report.rows, 1)
    ]
    return element(
        "table",
        element("caption", _caption(report)),
        element("thead", element("tr", *_heads(formats), role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        role="table", class_="rows cards", id="rows",
    )  # fmt: skip


def first_to_differ(report: Report) -> Row | None:
    return next((row for row in report.rows if not row.passed), None)


def place_of(report: Report, part: str) -> int:
    """The number of a row in the table, from 1."""
    return [row.part for row in report.rows].index(part) + 1


def anchor(place: int) -> str:
    return f"row-{place}"


def _caption(report: Report) -> str:
    batches = len(report.batches)
    of = "" if batches == 1 else f", and the shape is that of the first of {batches} batches"
    return (
        "float64 is the largest difference between A and B, which is judged by the bound; other "
        "number formats show what they round, the larger error of both sides against its own "
        f"float64. Padding is left out{of}."
    )


def _heads(formats: Sequence[str]) -> Iterator[Markup]:
    """``data-first`` is the direction of the first click."""
    columns = [
        ("#", "place", ASCENDING), ("name", "name", ASCENDING), ("shape", "shape", DESCENDING),
        ("float64", "number", DESCENDING), ("bound", "number", DESCENDING),
        *((name, "number", DESCENDING) for name in formats), ("verdict", "verdict", DESCENDING),
    ]  # fmt: skip
    for title, class_, direction in columns:
        order = ASCENDING if class_ == "place" else "none"
        yield element("th", title, scope="col", role="columnheader", class_=class_,
                      aria_sort=order, data_first=direction)  # fmt: skip


def _row(place: int, row: Row, sizes: Shape, formats: Sequence[str], first: bool) -> Markup:
    name = shown(row.part)
    tag = element("span", "first to differ", class_="tag") if first else None
    verdict = "PASS" if row.passed else "FAIL"
    classes = ["pass" if row.passed else "fail", *([FIRST] if first else [])]
    return element(
        "tr",
        _cell("#", "place", f"{place}", place),
        element("th", element("span", name, id=FIRST if first else None, title=row.part), tag,
                scope="row", role="rowheader", class_="name", data_sort=name.lower()),
        _cell("shape", "shape", shape(sizes), math.prod(sizes)),
        _number("float64", row.float64, 3),
        _number("bound", row.bound, 3),
        *(_number(name, row.errors.get(name), 1) for name in formats),
        _cell("verdict", "verdict", element("span", verdict, class_="badge"), int(not row.passed)),
        role="row", id=anchor(place), class_=" ".join(classes),
        data_name=f"{name} {row.part}".lower(),
    )  # fmt: skip


def _cell(label: str, class_: str, content: Cell, key: float | str) -> Markup:
    return element("td", content, role="cell", class_=class_, data_label=label, data_sort=key)


def _number(label: str, value: float | None, digits: int) -> Markup:
    """A number; what was not measured is an empty cell, which is last in any order."""
    if value is None:
        return _cell(label, "number", "", "")
    return _cell(label, "number", number(value, digits), value if math.isfinite(value) else "inf")


def budget_table(report: Report) -> Markup | None:
    """What each number format does to the logits of each side, beside its own float64."""
    heads = "number format", "side", "largest error", "relative", "largest KL", "top 1", "top 5"
    rows, overflows = [], False
    for name, rounding in report.budget.items():
        for side, found in rounding.sides.items():
            errors = map(number, (found.max_abs, found.relative, found.max_kl))
            tops = map(share, (found.top1, found.top5))
            rows.append([name, side, *errors, *tops, found.overflow or ""])
            overflows = overflows or found.overflow is not None
    if not rows:
        return None
    last = ("NaN or infinite first in",) if overflows else ()
    return small_table((*heads, *last), [row if overflows else row[:-1] for row in rows])


def small_table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Markup:
    """A table whose rows begin with their name; on a narrow screen each row is a card."""
    tops = [element("th", head, scope="col", role="columnheader") for head in heads]
    body = [
        element("tr", element("th", row[0], scope="row", role="rowheader"),
                *(element("td", cell, role="cell", data_label=head)
                  for head, cell in zip(heads[1:], row[1:], strict=True)), role="row")
        for row in rows
    ]  # fmt: skip
    return element(
        "table",
        element("thead", element("tr", *tops, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        role="table", class_="small cards",
    )  # fmt: skip


def terms(pairs: Mapping[str, Cell | Sequence[Cell]]) -> Markup:
    """Names and what they are, one below the other; several of one are several lines."""
    held = []
    for name, values in pairs.items():
        values = [values] if isinstance(values, str) else values
        held.append(
            element("div", element("dt", name), *(element("dd", value) for value in values))
        )
    return element("dl", *held)
