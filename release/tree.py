"""Checks of the repository as it is committed: nothing is built for them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from release.findings import Finding, output_of

MEGABYTE = 1_000_000
HEADING = re.compile(r"^## (?P<version>\S+)(?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def committed(root: Path) -> Finding:
    """Nothing is changed or new beside what is committed, which is what is released."""
    changed = output_of("git", "status", "--porcelain", folder=root).splitlines()
    head = output_of("git", "rev-parse", "--short", "HEAD", folder=root).strip()
    return Finding([f"not committed: {line.strip()}" for line in changed], head)


def large(sizes: Iterable[tuple[str, int]], where: str) -> Finding:
    """No file is larger than a megabyte; ``sizes`` are names and bytes."""
    found = sorted(sizes, key=lambda entry: -entry[1])
    faults = [f"{name} has {size:,} bytes in {where}" for name, size in found if size > MEGABYTE]
    name, size = found[0] if found else ("nothing", 0)
    return Finding(faults, f"{len(found):,} files in {where}, the largest {name}, {size:,} bytes")


def committed_sizes(root: Path) -> list[tuple[str, int]]:
    """Every file of every commit up to this one: what a clone brings."""
    objects = output_of("git", "rev-list", "--objects", "HEAD", folder=root).splitlines()
    names = dict(line.split(" ", 1) for line in objects if " " in line)
    form = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    told = output_of("git", "cat-file", form, "--batch-all-objects", folder=root)
    entries = (line.split() for line in told.splitlines())
    return [
        (names[hashed], int(size))
        for hashed, kind, size in entries
        if kind == "blob" and hashed in names
    ]


def sections(changelog: str) -> dict[str, tuple[str | None, str]]:
    """Version, or Unreleased -> its date and its text, the newest first."""
    heads = list(HEADING.finditer(changelog))
    ends = [head.start() for head in heads[1:]] + [len(changelog)]
    return {
        head["version"]: (head["date"], changelog[head.end() : end].strip())
        for head, end in zip(heads, ends, strict=True)
    }


def cited(citation: str, key: str) -> str | None:
    """The value of a top-level key of CITATION.cff."""
    found = re.search(rf"^{key}: *[\"']?([^\"'\n]+?)[\"']? *$", citation, re.MULTILINE)
    return found[1] if found else None


def versions(root: Path) -> Finding:
    """pyproject.toml, CHANGELOG.md and CITATION.cff name one version, one date, one licence."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    told = sections((root / "CHANGELOG.md").read_text("utf-8"))
    citation = (root / "CITATION.cff").read_text("utf-8")
    return agreeing(project["version"], project["license"], told, citation)


def agreeing(
    version: str, licence: str, told: dict[str, tuple[str | None, str]], citation: str
) -> Finding:
    """``told`` are the sections of the changelog, ``citation`` is the text of CITATION.cff."""
    faults = []
    if told.get("Unreleased", (None, ""))[1]:
        faults.append("CHANGELOG.md has changes under Unreleased")
    newest = next((name for name in told if name != "Unreleased"), None)
    if newest != version:
        faults.append(f"pyproject.toml has {version}, the newest of CHANGELOG.md is {newest}")
    date, text = told.get(version, (None, ""))
    if not date or not text:
        faults.append(f"the section {version} of CHANGELOG.md has no date or no text")
    wanted = {"version": version, "date-released": date, "license": licence}
    for key, value in wanted.items():
        given = cited(citation, key)
        if given != value:
            faults.append(f"CITATION.cff has {key} {given}, and {value} is meant")
    return Finding(faults, f"{version} of {date}")
