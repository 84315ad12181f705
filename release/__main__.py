"""python -m release: check that what is committed can be released, and print a table.

Builds the wheel and the sdist from a clean checkout, installs the wheel in fresh environments, and
runs docs/first-steps.md there. Takes the network for installing, and about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from release import alone, archives, dependencies, environments, licences, page, tree
from release.findings import ROOT, Finding, Row, judge

Check = tuple[str, Callable[[], Finding]]
Made = TypeVar("Made")
FIRST = "docs/first-steps.md"
NAME_WIDTH = 34


def of_the_tree() -> Iterator[Check]:
    """What needs no build."""
    yield "everything is committed", lambda: tree.committed(ROOT)
    yield "one version, dated", lambda: tree.versions(ROOT)
    yield "no large file in git", lambda: tree.large(tree.committed_sizes(ROOT), "git")
    yield "declared = imported", lambda: dependencies.dependencies(ROOT)


def of_the_archives(built: archives.Built) -> Iterator[Check]:
    """The wheel and the sdist."""
    wheel, sdist = archives.contents(built.wheel), archives.contents(built.sdist)
    files = archives.tracked(built.checkout)
    yield "metadata", lambda: archives.metadata(built)
    yield "what the wheel holds", lambda: archives.wheel_holds(wheel, files)
    yield "what the sdist holds", lambda: archives.sdist_holds(sdist, files)
    yield (
        "the sdist builds the same wheel",
        lambda: archives.same_files(wheel, archives.contents(built.again)),
    )
    for kind, held in (("wheel", wheel), ("sdist", sdist)):
        sizes = [(name, len(content)) for name, content in held.items()]
        yield f"no large file in the {kind}", lambda s=sizes, k=kind: tree.large(s, f"the {k}")


def of_an_installation(made: environments.Environment, steps: int | None) -> Iterator[Check]:
    """The wheel with every extra that a user of both frameworks needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    libraries, modules = made.inspect()
    yield "the wheel with [all]", lambda: environments.installed(made, project["version"])
    yield (
        "our modules are ours alone",
        lambda: environments.modules_alone(modules, dependencies.PACKAGES),
    )
    yield "licences of what comes along", lambda: licences.licences(libraries)
    yield FIRST, lambda: page.page_runs(made, page.steps(ROOT / FIRST, steps))


def of_one_framework(folder: Path, wheel: Path, name: str) -> Callable[[], Finding]:
    """The wheel with one framework: a check that makes its own environment."""

    def check() -> Finding:
        constraints = ROOT / "constraints.txt"
        made = environments.install(folder / name, wheel, f"{name},train", constraints)
        return alone.works_alone(made, name)

    return check


class Table:
    """The rows so far, printed as they come."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, name: str, check: Callable[[], Finding]) -> None:
        row = judge(name, check)
        self.rows.append(row)
        print("\n".join(row.lines(NAME_WIDTH)), flush=True)

    def made(self, name: str, make: Callable[[], Made]) -> Made | None:
        """What ``make`` makes, its making a row; None where it failed."""
        kept: list[Made] = []

        def check() -> Finding:
            kept.append(make())
            return Finding()

        self.add(name, check)
        return kept[0] if kept else None

    def end(self) -> int:
        """Print the lists and the verdict; the exit status."""
        for row in self.rows:
            if row.finding.listed:
                print("\n".join(["", f"{row.name}:", *row.finding.listed]))
        failed = [row.name for row in self.rows if not row.passed]
        verdict = f"FAIL: {', '.join(failed)}" if failed else f"PASS: all {len(self.rows)} checks"
        print(f"\n{verdict}")
        return 1 if failed else 0


def check_all(folder: Path, table: Table, frameworks: Sequence[str], steps: int | None) -> None:
    """Every check in its order; what builds on a failure is left out, which is one already."""
    for name, check in of_the_tree():
        table.add(name, check)
    built = table.made("wheel and sdist are built", lambda: archives.build(ROOT, folder))
    if not built:
        return
    for name, check in of_the_archives(built):
        table.add(name, check)
    place, constraints = folder / "all", ROOT / "constraints.txt"
    made = table.made(
        "it is installed afresh",
        lambda: environments.install(place, built.wheel, "all", constraints),
    )
    for name, check in of_an_installation(made, steps) if made else ():
        table.add(name, check)
    for name in frameworks:
        table.add(f"{name} alone", of_one_framework(folder, built.wheel, name))


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every check passed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/release", help="%(default)s")
    parser.add_argument(
        "--frameworks", nargs="*", default=["jax", "torch"], choices=["jax", "torch"],
        help="those that are tried alone; default: both",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, help="steps of training on the page; default: as the page says"
    )
    request = parser.parse_args(arguments)
    shutil.rmtree(request.folder, ignore_errors=True)
    request.folder.mkdir(parents=True)
    table = Table()
    check_all(request.folder, table, request.frameworks, request.steps)
    return table.end()


if __name__ == "__main__":
    sys.exit(main())
