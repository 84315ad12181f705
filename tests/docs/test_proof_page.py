"""The page about the proof stays true: its numbers that code or another page also holds."""

from __future__ import annotations

import re

from page_blocks import DOCS

from parity.forward.measures import FLOAT32_BOUND, GRADIENT_BOUND, STEP_BOUND
from parity.twins.cases import pairwise_configs

PAGE = (DOCS / "proof.md").read_text(encoding="utf-8")
CATCHES = (DOCS / "parity.md").read_text(encoding="utf-8")
# What the page tells of a slip -> the start of its row on the page of slips.
STORIES = {
    "5.3e-4": "| activation: 'gelu_tanh' for 'gelu' | 5.3e-04 |",
    "1.1e-5": "| LayerNorm epsilon: 1e-06 for 1e-05 | 1.1e-05 |",
    "0.95": "| positions over padding: True for False | 9.5e-01 |",
}


def test_the_stories_are_of_the_table() -> None:
    for figure, row in STORIES.items():
        assert figure in PAGE and f"\n{row}" in CATCHES
    planted = re.search(r"plants (\d+) such slips", PAGE)
    rows = re.findall(r"^\| \S.* \| (?:passes|caught) \|$", CATCHES, re.MULTILINE)
    assert planted and len(rows) == int(planted[1]) and f"of {planted[1]} pass" in CATCHES


def test_the_bounds_are_those_of_the_code() -> None:
    stated = r"bound of (\S+) for numbers around 1.*?and (\S+) for gradients", r"bound of (2e-5)"
    (steps, gradients), (float32,) = (re.search(one, PAGE, re.DOTALL).groups() for one in stated)
    found = tuple(map(float, (steps, gradients, float32)))
    assert found == (STEP_BOUND, GRADIENT_BOUND, FLOAT32_BOUND)


def test_the_number_of_parity_configs() -> None:
    all_of_them = len(pairwise_configs())
    stated = re.search(r"of the (\d+) configs that hold every pair", PAGE)
    assert stated and int(stated[1]) == all_of_them
    rows = re.findall(r"^(\S.*?)  .* (\d+)  PASS$", PAGE, re.MULTILINE)
    found = {what: int(configs) for what, configs in rows}
    everywhere = [what for what, configs in found.items() if configs == all_of_them]
    assert everywhere == [
        *("attention", "feed-forward", "encoder layer", "decoder layer", "encoder", "decoder"),
        *("logits", "weights there and back, changed bytes"),
    ]
    some = len(pairwise_configs()[::3])
    assert [what for what, configs in found.items() if configs == some] == [
        "loss, dropout on",
        "every gradient, dropout on",
    ]
    assert {configs for what, configs in found.items()} == {all_of_them, some, 1}
