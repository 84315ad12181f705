"""The example scripts fine-tune a model, in both frameworks alike, line for line."""

import difflib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from messages import faults_say
from translate_cases import make_run

import train

EXAMPLES = Path(train.__file__).parent / "examples"
PAIRS = ["abc\tAA BB CC", "g\tGG", "baba\tBB AA BB AA", "fed\tFF EE DD"] * 10


def example(name: str):
    """The module of a script."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.sampled(1)
@pytest.mark.parametrize("writer", ["torch", "jax"])
def test_both_learn_the_same(tmp_path, capsys, writer: str) -> None:
    run, pairs = make_run(tmp_path / "run", writer), tmp_path / "pairs.tsv"
    pairs.write_text("\n".join(PAIRS), "utf-8")
    found = [
        example(name).main(str(run), str(pairs), "40")
        for name in ("finetune_flax", "finetune_torch")
    ]
    np.testing.assert_allclose(*found, rtol=1e-3)
    assert found[0][-1] < 0.95 * found[0][0]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"step 1: loss {found[0][0]:.4f}" and len(lines) == 80


@pytest.mark.parametrize("name", ["finetune_flax", "finetune_torch"])
@pytest.mark.parametrize("missing", ["run", "pairs.tsv"])
def test_a_mistake_is_one_line(tmp_path, name: str, missing: str) -> None:
    run, pairs = make_run(tmp_path / "run", "torch"), tmp_path / "pairs.tsv"
    pairs.write_text("\n".join(PAIRS), "utf-8")
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), str(run), str(pairs), "1"]
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and done.stdout == ""
    faults_say(done.stderr.splitlines(), ("error:", tmp_path / missing))


def test_they_are_twins_of_some_sixty_lines() -> None:
    texts = [
        (EXAMPLES / f"finetune_{name}.py").read_text().splitlines() for name in ("flax", "torch")
    ]
    assert all(len(text) < 70 for text in texts)
    assert difflib.SequenceMatcher(None, *texts).ratio() > 0.6
