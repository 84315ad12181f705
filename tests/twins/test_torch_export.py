"""torch.compile without a break, and torch.export of one program for all shapes, of every form."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from export_cases import FORMS, WAYS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outcomes():
    command = [sys.executable, str(ROOT / "tests" / "export_cases.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {(form, way): outcome for form, way, outcome in json.loads(done.stdout)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_logits_of_three_shapes(form, way, outcomes):
    difference = outcomes[form, way]
    assert isinstance(difference, float), difference
    assert difference < 1e-12
