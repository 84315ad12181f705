"""The first page that a user reads, run from the wheel in an empty folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from release.environments import Environment
from release.findings import ROOT, Finding

sys.path.append(str(ROOT / "tests"))  # the one reader of pages
from page_blocks import blocks, commands  # noqa: E402  # pyright: ignore

# What a user who has the wheel has done already.
DONE = ("pip install ", "cd ", "git clone ")
# All blocks of a page in one namespace, its commands between them.
PROGRAM = """
import json, os, subprocess, sys
sys.path.insert(0, os.getcwd())
names = {"__name__": "page"}
for kind, line, text in json.loads(sys.argv[1]):
    print(f"line {line}: {text.splitlines()[0]}", flush=True)
    if kind == "python":
        exec(compile(chr(10) * line + text, "page", "exec"), names)
    else:
        status = subprocess.run(["bash", "-c", text]).returncode
        if status:
            sys.exit(f"line {line}: {text}: exit status {status}")
"""
Step = tuple[str, int, str]


def steps(page: Path, most_steps: int | None = None) -> list[Step]:
    """Kind, line and text of what is run; training is cut to ``most_steps`` where it is given."""
    found: list[Step] = []
    for block in blocks(page):
        if block.kind == "python":
            found.append(("python", block.line, block.text))
        elif block.kind == "sh":
            lines = [line for line in commands(block) if not line.startswith(DONE)]
            found += [("sh", block.line, shortened(line, most_steps)) for line in lines]
    return found


def shortened(line: str, most_steps: int | None) -> str:
    training = line.startswith("twinformer train") and "--steps" not in line
    return f"{line} --steps {most_steps}" if training and most_steps else line


def page_runs(environment: Environment, taken: Sequence[Step]) -> Finding:
    """Every step ends well, in the folder of the environment, which is empty."""
    if not taken:
        return Finding(["the page has neither commands nor Python"])
    if environment.work.is_dir() and any(environment.work.iterdir()):
        return Finding([f"{environment.work} is not empty"])
    environment.run("python", "-c", PROGRAM, json.dumps(taken))
    kinds = [kind for kind, _, _ in taken]
    return Finding((), f"{kinds.count('sh')} commands, {kinds.count('python')} blocks of Python")
