"""A disk that is full with Orbax output: one line, and not those of the libraries before it."""

import os
import subprocess
import sys

import pytest
from convert_cases import write_run
from messages import says
from translate_cases import ROOT

pytest.importorskip("tensorstore")
resource = pytest.importorskip("resource")
LIMITED = """
import resource, sys
sys.argv[0] = "convert/__main__.py"
from convert.__main__ import main
import tensorstore
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
sys.exit(main(["run", "made", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("flags", ["--to=flax", "--to=torch", "--to=torch --shard-size=900"])
def test_one_line(flags, tmp_path) -> None:
    write_run(tmp_path / "run", "torch")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *flags.split()], cwd=tmp_path, env=environment, text=True,
        timeout=100, capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    says(done.stderr, "error", "made", "File too large", "nothing was left")
    assert ".partial-" not in done.stderr
    assert os.listdir(tmp_path) == ["run"]
