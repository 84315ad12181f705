"""Checks of the two archives that are given away: the wheel and the source distribution."""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from release.dependencies import PACKAGES
from release.findings import Finding, output_of

# What the packages have beside Python, as package-data of pyproject.toml says.
DATA = (
    "*/py.typed", "training_recipe/recipes/*.toml", "convert/naming/tables/*.toml",
    "parity/page/*.css", "parity/page/*.js",
)  # fmt: skip
METADATA = (
    "METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE",
)  # fmt: skip
# What the source distribution has beside the packages: files of the checkout, and what is made.
BESIDE = (
    "CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "constraints.txt",
    "pyproject.toml",
)  # fmt: skip
MADE = ("PKG-INFO", "setup.cfg", "twinformer.egg-info/*")


@dataclass(frozen=True)
class Built:
    """A clean checkout and what is built of it; ``again`` is the checkout's own wheel."""

    checkout: Path
    wheel: Path
    sdist: Path
    again: Path


def build(root: Path, folder: Path) -> Built:
    """Clone what is committed; build the sdist, the sdist's wheel, and the clone's own wheel."""
    checkout = folder / "checkout"
    output_of("git", "clone", "-q", "--no-hardlinks", root, checkout)
    making = sys.executable, "-m", "build"
    output_of(*making, "--outdir", folder / "dist", checkout)
    output_of(*making, "--wheel", "--outdir", folder / "again", checkout)
    return Built(
        checkout, *(_only(folder, kind) for kind in ("dist/*.whl", "dist/*.tar.gz", "again/*.whl"))
    )


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def contents(archive: Path) -> dict[str, bytes]:
    """Name -> bytes of every file; those of an sdist without its outer folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            return {name: opened.read(name) for name in opened.namelist() if name[-1] != "/"}
    with tarfile.open(archive) as opened:
        files = {member.name: opened.extractfile(member) for member in opened if member.isfile()}
        return {name.partition("/")[2]: file.read() for name, file in files.items() if file}


def tracked(checkout: Path) -> list[str]:
    return output_of("git", "ls-files", folder=checkout).splitlines()


def of_packages(names: Iterable[str]) -> set[str]:
    """What a user's installation has: of the checkout's files, and the mark of types of each."""
    inside = {name for name in names if name.partition("/")[0] in PACKAGES}
    marks = {f"{name.partition('/')[0]}/py.typed" for name in inside}
    held = {n for n in inside if n.endswith(".py") or any(fnmatch(n, form) for form in DATA)}
    return held | marks


def wheel_holds(names: Iterable[str], files: Iterable[str]) -> Finding:
    """The wheel's ``names`` are the packages' ``files``, their data and the metadata: no more."""
    given, expected = set(names), of_packages(files)
    about = {name for name in given if name.partition("/")[0].endswith(".dist-info")}
    metadata = {name.partition("/")[2] for name in about}
    faults = [f"{name} is not in the wheel" for name in sorted(expected - given)]
    faults += [f"{name} is no part of a package" for name in sorted(given - about - expected)]
    faults += [f"its metadata lacks {name}" for name in sorted(set(METADATA) - metadata)]
    faults += [f"its metadata has {name}" for name in sorted(metadata - set(METADATA))]
    return Finding(faults, f"{len(given)} files: {len(expected)} of the packages")


def sdist_holds(names: Iterable[str], files: Iterable[str]) -> Finding:
    """The sdist's ``names`` are the packages' ``files`` and what building and reading needs."""
    given, expected = set(names), of_packages(files) | set(BESIDE)
    extra = {name for name in given - expected if not any(fnmatch(name, form) for form in MADE)}
    faults = [f"{name} is not in the sdist" for name in sorted(expected - given)]
    faults += [f"{name} does not belong in the sdist" for name in sorted(extra)]
    return Finding(faults, f"{len(given)} files")


def same_files(left: Mapping[str, bytes], right: Mapping[str, bytes]) -> Finding:
    """Two wheels have the same files with the same bytes."""
    faults = [f"{name} is in one alone" for name in sorted(left.keys() ^ right.keys())]
    both = sorted(left.keys() & right.keys())
    faults += [f"{name} differs" for name in both if left[name] != right[name]]
    total = hashlib.sha256(b"".join(left[name] for name in sorted(left))).hexdigest()
    return Finding(faults, f"{len(both)} files, sha256 of all {total[:16]}")


def metadata(built: Built) -> Finding:
    """What twine says of both archives."""
    names, folder = (built.wheel.name, built.sdist.name), built.wheel.parent
    return passed_by_twine(
        output_of(sys.executable, "-m", "twine", "check", "--strict", *names, folder=folder)
    )


def passed_by_twine(told: str) -> Finding:
    """Twine's own words, which it breaks to the width of a terminal: both archives passed."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told)
    lines = [" ".join(part.split()) for part in re.split(r"^Checking", plain, flags=re.M)[1:]]
    faults = [line for line in lines if not line.endswith("PASSED")]
    if len(lines) != 2:
        faults.append(f"twine looked at {len(lines)} archives and not at two")
    return Finding(faults, "twine check --strict")
