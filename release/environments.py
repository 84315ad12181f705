"""Fresh environments in which the wheel is all that there is of the project."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from release.findings import Finding, output_of
from release.licences import Library

# What stays of the environment variables; no PYTHONPATH, no flags of compilers, no caches.
KEPT = ("LANG", "LC_ALL", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "TMPDIR", "OMP_NUM_THREADS")
INSPECTION = """
import importlib.metadata, json
def told(found):
    about = found.metadata
    return {
        "name": about["Name"], "version": found.version,
        "expression": about["License-Expression"] or "", "text": about["License"] or "",
        "classifiers": [c for c in about.get_all("Classifier", []) if c.startswith("License ::")],
    }
libraries = {}
for found in importlib.metadata.distributions():
    libraries.setdefault(found.metadata["Name"], told(found))
print(json.dumps([list(libraries.values()), importlib.metadata.packages_distributions()]))
"""


@dataclass(frozen=True)
class Environment:
    """``folder`` is a virtual environment; commands run in ``work`` with a home of their own."""

    folder: Path
    work: Path

    @property
    def bin(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *words: str | Path) -> str:
        """What a program of the environment prints; ``words[0]`` is looked for there first."""
        self.work.mkdir(parents=True, exist_ok=True)
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        path = os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)])
        places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PATH": path}
        program = self.bin / words[0]
        first = program if program.exists() else words[0]
        return output_of(first, *words[1:], folder=self.work, **kept, **places)

    def inspect(self) -> tuple[list[Library], dict[str, list[str]]]:
        """The installed libraries, and which of them each top-level module belongs to."""
        libraries, modules = json.loads(self.run("python", "-c", INSPECTION))
        return [Library(**library) for library in libraries], modules


def install(folder: Path, wheel: Path, extras: str, constraints: Path) -> Environment:
    """A new environment with the wheel and its extras, as ``pip install`` of a user makes it."""
    output_of(sys.executable, "-m", "venv", "--clear", folder)
    made = Environment(folder, folder / "work")
    wanted = f"{wheel}[{extras}]"
    pip = made.bin / "python", "-m", "pip", "install", "-q", "--no-compile"
    output_of(*pip, "-c", constraints, wanted)
    return made


def installed(environment: Environment, version: str) -> Finding:
    """pip finds no conflict, and the command says the version that was built."""
    output_of(environment.bin / "python", "-m", "pip", "check")
    said = environment.run("twinformer", "--version").strip()
    faults = [] if said == f"twinformer {version}" else [f"the command says {said!r}"]
    return Finding(faults, said)


def modules_alone(modules: dict[str, list[str]], ours: tuple[str, ...]) -> Finding:
    """No other library of the environment has a module of one of our names."""
    faults = []
    for name in ours:
        owners = set(modules.get(name, []))
        if owners != {"twinformer"}:
            faults.append(f"{name} belongs to {', '.join(sorted(owners)) or 'nothing'}")
    return Finding(faults, f"{len(ours)} of {len(modules)} top-level modules")
