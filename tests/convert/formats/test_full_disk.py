"""A disk that is full with Orbax output: one line, and not those of the libraries before it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from convert_cases import write_run
from messages import says
from translate_cases import ROOT

from convert.formats.silence import silent_writers

pytest.importorskip("orbax.checkpoint")
resource = pytest.importorskip("resource")
LIMITED = """
import resource, sys
sys.argv[0] = "convert/__main__.py"
from convert.__main__ import main
import orbax.checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
sys.exit(main(["run", "made", "--to", "flax"]))
"""


def test_one_line(tmp_path) -> None:
    write_run(tmp_path / "run", "torch")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=tmp_path, env=environment, text=True, timeout=100,
        capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    says(done.stderr, "error", "made", "File too large", "nothing was left")
    assert os.listdir(tmp_path) == ["run"]


def test_silence_ends(capfd) -> None:
    with pytest.raises(ValueError), silent_writers():
        os.write(2, b"foreign\n")
        raise ValueError
    os.write(2, np.array([104, 105, 10], np.uint8).tobytes())
    assert capfd.readouterr().err == "hi\n"
