"""A page as a reader of HTML sees it, and reports to make pages of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from parity_cases import MEASURED, TINY, report_with

from parity.comparison.report import Cause, Departure, Report, Rounding, Row
from parity.forward.substeps import substeps

VOID = {"meta", "link", "input", "br"}
FAILING = "encoder.enc_layers.0.ffn.fc2 input"


@dataclass
class Node:
    """An element: its attributes, and what is in it, text and elements."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    content: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.content)

    def walk(self) -> Iterator[Node]:
        for part in self.content:
            if isinstance(part, Node):
                yield part
                yield from part.walk()

    def all(self, tag: str, **attributes: str) -> list[Node]:
        """The elements below that have the attributes; one of the classes is enough."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            node for node in self.walk() if node.tag == tag
            and all(value in (node.attributes.get(name) or "").split() for name, value in
                    wanted.items())
        ]  # fmt: skip


class Reader(HTMLParser):
    """Builds the elements; one that is not closed, or closed as another, is no page of ours."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("page")]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of {tag} twice: {names}"
        node = Node(tag, dict(attrs))
        self.open[-1].content.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].content.append(data)


def read(html: str) -> Node:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1, [node.tag for node in reader.open]
    return reader.open[0]


def rows_of(page: Node) -> list[Node]:
    (table,) = page.all("table", class_="rows")
    return table.all("tbody")[0].all("tr")


def cells_of(row: Node) -> dict[str, str]:
    """Texts by the names of columns."""
    return {cell.attributes["data-label"] or "": cell.text for cell in row.all("td")}


def made_up(**fields) -> Report:
    """A report that differs from ``FAILING`` on, of sub-steps, the loss and one gradient."""
    steps = substeps(TINY)
    rest = ["loss", "gradient of decoder.finalFc.weight"]
    rows = [
        Row(part, 1e-3 / n if FAILING in steps[:n] else 3e-16 * n, 1e-11, 2.0,
            {"float32": 1e-7 * n, "bfloat16": 1e-2} if part in steps else {})
        for n, part in enumerate([*steps, *rest], 1)
    ]  # fmt: skip
    given = {
        "config": TINY.to_dict(),
        "batches": (((6, 9), (6, 5)), ((1, 9), (1, 9))),
        "budget": {"float32": Rounding(MEASURED, MEASURED, (1e-8, 2e-5))},
        "first": Departure(FAILING, 0, (1, 2, 3), 0.1, -0.25, 0.35),
        "causes": (Cause("activation", "activation: A 'relu', B 'gelu'"),),
        "different_settings": {"activation": ("relu", "gelu")},
        "notes": ("something is left out",),
    }
    return report_with(rows, **given | fields)


def not_finite() -> Report:
    """Errors that are NaN, infinite, zero, or not measured."""
    rows = [
        Row("encoder.embed", 0.0, 1e-11, 1.0, {"float16": 1e-3}),
        Row("encoder.enc_layers.0.ffn.fc1", math.inf, 1e-11, 1.0, {"float16": math.inf}),
        Row("decoder.embed", math.nan, 1e-11, math.nan, {"float16": math.nan}),
        Row("decoder.finalFc", 1e-15, 1e-11),
    ]
    broken = Rounding(None, MEASURED, (1e-5, 1e-1))
    overflow = {"float16": broken}
    first = Departure(rows[1].part, 0, (), math.nan, math.nan, math.inf)
    return report_with(
        rows, config=TINY.to_dict(), batches=(((6, 9), (6, 5)),), budget=overflow, first=first
    )
