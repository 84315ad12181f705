"""What the commands of each page of docs/ read: small stand-ins of the same names.

A stand-in is made as its library makes it: a Marian folder by transformers, a run by train.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import page_folders_guides as guides
import page_folders_proof as proof
import pytest

Fill = Callable[[Path, pytest.FixtureRequest], None]


def nothing(folder: Path, request: pytest.FixtureRequest) -> None:
    """An empty folder."""


@dataclass(frozen=True)
class Page:
    """How the blocks of a page are run.

    ``fill(folder, request)`` writes what they read; ``changes`` are texts of the page and what
    takes their place, as fewer steps; ``statuses`` are exit statuses of commands that should not
    end with 0; ``thorough``: too long for every run of the tests.
    """

    fill: Fill = nothing
    changes: tuple[tuple[str, str], ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    thorough: bool = False


PAGES: dict[str, Page] = {
    "README.md": Page(guides.readme, changes=((", steps=200", guides.SHORT),)),
    "docs/adding-a-family.md": Page(proof.new_family),
    "docs/benchmarks.md": Page(),
    "docs/families.md": Page(guides.families),
    "docs/first-steps.md": Page(),
    "docs/hub.md": Page(guides.hub),
    "docs/index.md": Page(guides.hub),
    "docs/parity.md": Page(changes=proof.FEWER_MUTATIONS),
    "docs/proof.md": Page(proof.proof, proof.CHANGES, thorough=True),
    "docs/speech.md": Page(proof.whisper, thorough=True),
    "docs/t5x.md": Page(guides.t5x, statuses={"python -m convert no-gin asked --to torch": 2}),
    "docs/training.md": Page(
        guides.training, changes=((", steps=2000", guides.FEW_STEPS),), thorough=True
    ),
    "docs/translating.md": Page(guides.translating),
}
