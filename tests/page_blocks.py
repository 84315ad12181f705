"""The blocks of a page of docs/: what a reader would copy, with the line where it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# What is run, and what is only looked at: output, files to write, drawings.
RUN = ("sh", "python")
SHOWN = ("text", "toml", "json", "yaml", "mermaid", "jinja")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """``kind``: the word after the fence; ``line``: of the fence, from 1."""

    kind: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a Markdown file, in their order."""
    content = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(content):
        indent = match["indent"]
        text = "".join(line.removeprefix(indent) for line in match["text"].splitlines(True))
        kind = match["kind"].split()[0] if match["kind"].split() else ""
        found.append(Block(kind, text, content[: match.start()].count("\n") + 1))
    return found


def commands(block: Block) -> list[str]:
    """The commands of a ``sh`` block, continued lines joined, without comments and empty lines."""
    joined = re.sub(r"[ \t]*\\\n\s*", " ", block.text)
    lines = [re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line]
