"""Execute the notebooks of docs/notebooks; as a program, refresh their outputs: make notebooks.

python tests/notebook_runs.py [NOTEBOOK.ipynb ...]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "docs" / "notebooks"
SECONDS = 280
# What a reader's own kernel has not, and would change what is computed.
OF_TESTS = ("XLA_FLAGS",)


def executed(path: Path, folder: Path) -> Any:
    """The notebook with the outputs of today's code, run in ``folder``; a fault is raised."""
    notebook = nbformat.read(path, as_version=4)
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    given = {name: value for name, value in os.environ.items() if name not in OF_TESTS}
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env=given | {"PYTHONPATH": paths})
    notebook.metadata["language_info"] = {"name": "python"}  # and not the version of this one
    return notebook


def main(names: list[str]) -> None:
    """Run notebooks, by default all, and keep their outputs."""
    for path in [Path(name) for name in names] or sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
