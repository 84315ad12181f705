"""python -m benchmarks.reported_inputs FOLDER --before REVISION: what commands say, then and now.

FOLDER holds scripts that make an input each, run this project's commands on it from the current
folder and print, for each, ``$ python ...``, its output and ``exit status N``. All of them run in a
copy of an older revision and in this tree; each script has a table with a row for each command.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"\A\$ python ([^\n]*)\n(.*?)^exit status (\d+)", re.MULTILINE | re.DOTALL)
CUT = 110
HEADING = "| command | before | now |\n|---|---|---|"


@dataclass(frozen=True)
class Run:
    """One command of a script: its words, its exit status, and what counts of what it said."""

    words: str
    status: int
    said: str

    @property
    def cell(self) -> str:
        return f"{self.status}: {short(self.said)}"


def run_script(script: Path, tree: Path, limit: int) -> list[Run]:
    """What the commands of a script ended with in one tree."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, str(script.resolve())],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    return [
        Run(words, int(status), _first_line(output, int(status)))
        for words, output, status in _commands(done.stdout)
    ]


def _commands(text: str) -> list[tuple[str, str, str]]:
    """Words, output and status of each command."""
    parts = re.split(r"^(?=\$ python )", text, flags=re.MULTILINE)
    found = [match for match in map(COMMAND.search, parts) if match]
    return [(match[1], match[2], match[3]) for match in found]


def _first_line(output: str, status: int) -> str:
    """The error, or the line that sums up."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if "Traceback" in output:
        return "TRACEBACK"
    wanted = ("error:",) if status == 2 else ("converted ", "PASS", "FAIL", "family ")
    found = [line for line in lines if line.startswith(wanted)]
    return (found or lines or ["(nothing)"])[0]


def sections(before: dict[str, list[Run]], now: dict[str, list[Run]]) -> str:
    """A heading for each input, and a Markdown row for each command of this tree's runs."""
    return "\n\n".join(
        f"## {name}\n\n{HEADING}\n{rows(before.get(name, []), runs)}"
        for name, runs in now.items()
        if runs
    )


def rows(before: list[Run], now: list[Run]) -> str:
    lines = []
    for number, run in enumerate(now):
        then = before[number].cell if number < len(before) else "(not run)"
        words = short(run.words.removeprefix("-m "))
        lines.append(f"| `{words}` | {'the same' if then == run.cell else then} | {run.cell} |")
    return "\n".join(lines)


def short(text: str) -> str:
    """A text as a cell of a table holds it."""
    return (text if len(text) <= CUT else f"{text[:CUT]}...").replace("|", "\\|")


def all_runs(scripts: list[Path], tree: Path, limit: int) -> dict[str, list[Run]]:
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = pool.map(lambda script: run_script(script, tree, limit), scripts)
        return {
            s.stem: runs for s, runs in zip(scripts, tqdm(found, total=len(scripts)), strict=True)
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reported_inputs")
    parser.add_argument("folder", type=Path, help="scripts that make an input and run commands")
    parser.add_argument("--before", required=True, metavar="REVISION", help="of this repository")
    parser.add_argument("--output", type=Path, metavar="FILE.md", help="(default: printed)")
    parser.add_argument("--limit", type=int, default=600, help="seconds a script may take")
    options = parser.parse_args()
    scripts = sorted(options.folder.glob("*.py"))
    with tempfile.TemporaryDirectory() as there:
        tree = Path(there) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), options.before], check=True)
        try:
            before = all_runs(scripts, tree, options.limit)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    text = sections(before, all_runs(scripts, ROOT, options.limit))
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
