"""The notebooks of docs/notebooks run from top to bottom and say what they have kept.

``make notebooks`` refreshes what they keep. Numbers may differ from machine to machine, words not.
"""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from page_blocks import ROOT

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

from notebook_runs import NOTEBOOKS, executed  # noqa: E402

YOURS, SERVED, WRONG = "your-transformer-in-jax", "fine-tune-and-serve", "wrong-conversions"
PICTURES = {YOURS: 1, SERVED: 1, WRONG: 2}
MOST_BYTES = 300_000
NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
OF_A_MACHINE = re.compile(r"/(?:tmp|home|root|usr|work|var|Users)/|site-packages|0x[0-9a-f]{6}")
LOGITS, GRADIENTS = 1e-11, 1e-10


def path_of(name: str) -> Path:
    return NOTEBOOKS / f"{name}.ipynb"


def kept(name: str) -> Any:
    return nbformat.read(path_of(name), as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell: Any) -> str:
    """What a cell printed or returned as text, beside pictures."""
    printed = [one.get("text", "") for one in cell.outputs]
    shown = [one.data for one in cell.outputs if "data" in one]
    plain = [data.get("text/plain", "") for data in shown if "image/png" not in data]
    return "".join(printed + plain)


def pictures_of(notebook: Any) -> list[int]:
    """How many PNGs each code cell shows."""
    cells = code_cells(notebook)
    return [sum("image/png" in one.get("data", {}) for one in cell.outputs) for cell in cells]


def words_of(cell: Any) -> str:
    """The text of a cell without its numbers."""
    return re.sub(NUMBER, "#", text_of(cell))


def said(notebook: Any) -> str:
    return "".join(map(text_of, code_cells(notebook)))


def number(pattern: str, text: str) -> float:
    """The number where a pattern has N."""
    found = re.search(pattern.replace("N", f"({NUMBER})"), text)
    assert found, f"nothing said {pattern!r}: {text}"
    return float(found[1])


def check_yours(text: str) -> None:
    """The wrong guess is found out, the table proved, and what both write is the same."""
    assert "same function: False" in text
    assert number(r"differ by N; rounding explains", text) > 1e-2
    assert "what explains all of it: activation: A 'gelu', B 'relu'" in text
    assert "PASS: same function" in text
    assert number(r"differ by N in float64", text) < LOGITS
    assert number(r"right: N of 200", text) >= 150
    assert number(r"the same in both: N of 200", text) >= 199
    assert "every tensor is as it was: True" in text


def check_served(text: str) -> None:
    """What was learned in JAX is what PyTorch serves."""
    assert number(r"right before: N%", text) <= 5
    assert number(r"after: N% of 200", text) >= 90
    assert number(r"the same text in both: N of 200", text) >= 199
    assert "PASS: same function" in text
    assert number(r"tables and the loss: at most N", text) < LOGITS
    assert number(r"gradients: at most N", text) < GRADIENTS


def check_wrong(text: str) -> None:
    """The right conversion is proved, wrong ones write the same, and each is named."""
    assert number(r"right: N of 100", text) >= 95
    assert "PASS: same function" in text
    assert number(r"rounding in float64: N", text) < LOGITS
    assert number(r"N of 14 slips leave all", text) >= 8
    assert text.count("first differs at") == 14
    assert text.count(": FAIL\n") == text.count("what explains all of it") == 4
    for cause in (
        "LayerNorm epsilon: A 1e-05, B 1e-06",
        "activation: A 'gelu', B 'gelu_tanh'",
        "sinusoid frequency: A '2i/d', B 'i/(d/2-1)'",
        "fcQ and fcK exchanged: everywhere (in B)",
    ):
        assert f"what explains all of it: {cause}" in text


CHECKS = {YOURS: check_yours, SERVED: check_served, WRONG: check_wrong}


def test_each_notebook_is_tested_and_in_the_site() -> None:
    pages = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == CHECKS.keys() == PICTURES.keys()
    assert all(f"notebooks/{name}.ipynb" in pages for name in CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_kept_is_whole_small_and_of_no_machine(name: str) -> None:
    notebook = kept(name)
    cells = code_cells(notebook)
    outputs = [one for cell in cells for one in cell.outputs]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert not [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"]
    assert not OF_A_MACHINE.search(said(notebook))
    assert sum(pictures_of(notebook)) == PICTURES[name]
    assert path_of(name).stat().st_size < MOST_BYTES
    CHECKS[name](said(notebook))


@pytest.mark.parametrize("name", CHECKS)
def test_what_it_takes_from_here_is_there(name: str, both_frameworks) -> None:
    """A name that is gone is found at once, where a notebook takes long to run."""
    source = "\n".join(re.sub("^%.*", "", cell.source) for cell in code_cells(kept(name)))
    taken = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in taken if node.module and (ROOT / node.module.split(".")[0]).is_dir()]
    for node in ours:
        module = importlib.import_module(str(node.module))
        assert [one.name for one in node.names if not hasattr(module, one.name)] == []
    assert bool(ours) == (name == WRONG)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [YOURS, SERVED, pytest.param(WRONG, marks=pytest.mark.thorough)])
def test_it_says_today_what_it_has_kept(name: str, tmp_path, both_frameworks) -> None:
    before, today = kept(name), executed(path_of(name), tmp_path)
    CHECKS[name](said(today))
    assert list(map(words_of, code_cells(today))) == list(map(words_of, code_cells(before)))
    assert pictures_of(today) == pictures_of(before)
    assert not [path for path in tmp_path.iterdir() if path.name != ".ipynb_checkpoints"]
