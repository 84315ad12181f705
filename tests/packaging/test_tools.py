"""What tests, the site and the checks need is imported by tests, or run where it is said."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
MODULES = {"orbax-checkpoint": "orbax"}
# What is run and not imported: where, and by which words.
RUN = {
    "beartype": ("tests/conftest.py", "beartype.beartype"),
    "import-linter": ("Makefile", "$(BIN)/lint-imports"),
    "ipykernel": ("tests/notebook_runs.py", 'kernel_name="python3"'),
    "mkdocs-jupyter": ("mkdocs.yml", "- mkdocs-jupyter"),
    "mkdocs-material": ("mkdocs.yml", "name: material"),
    "mkdocstrings": ("mkdocs.yml", "- mkdocstrings"),
    "pyright": ("Makefile", "$(BIN)/pyright"),
    "pytest-timeout": ("pyproject.toml", "timeout = 300"),
    "pytest-xdist": ("Makefile", "pytest -n $(JOBS)"),
    "ruff": ("Makefile", "$(BIN)/ruff"),
    "setuptools": ("pyproject.toml", 'build-backend = "setuptools.build_meta"'),
    "vulture": ("Makefile", "$(BIN)/vulture"),
}


def declared() -> set[str]:
    """The modules of what ``test``, ``docs`` and ``dev`` install, or the names of tools."""
    wanted = [line for extra in ("test", "docs", "dev") for line in EXTRAS[extra]]
    names = {re.split(r"[\[><=;! ]", line)[0] for line in wanted} - {"twinformer"}
    return {MODULES.get(name, name) for name in names}


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a test imports, or skips itself without."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            first = node.args[0]
            yield str(first.value) if isinstance(first, ast.Constant) else ""


def test_every_tool_is_imported_or_run() -> None:
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "tests").rglob("*.py")
        for name in imports_of(path)
    }
    assert declared() - imported == RUN.keys()
    for name, (place, words) in RUN.items():
        text = (ROOT / place).read_text(encoding="utf-8")
        assert words in text, f"{name} is not run in {place}"
