"""python -m release.names [--list FILE] [PACKAGE...]: who else has a module of our names.

FILE has a package's name in each line, whatever follows a tab. Of each PACKAGE the newest archive
is fetched by pip, from the index that pip is set to, and its top-level modules are read off it:
meant for the few packages that a list or a search makes suspect. Nothing fetched is run, but what
pip itself runs of a source distribution to learn its metadata.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from release.archives import contents
from release.dependencies import PACKAGES
from release.findings import CommandFailed, output_of

NO_PACKAGE = re.compile(r"^(tests?|docs?|examples?)$|\.(dist|egg)-info$|\.data$")


def normalised(name: str) -> str:
    """A package's name as an index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def of_our_names(listed: Iterable[str], ours: Sequence[str] = PACKAGES) -> list[str]:
    """Those listed that are called as one of our modules."""
    wanted = {normalised(name) for name in ours}
    return [name for name in listed if normalised(name) in wanted]


def modules(archive: Path) -> set[str]:
    """The top-level modules of a wheel or, as its folders have it, of a source distribution."""
    found = set()
    for name in contents(archive):
        parts = name.split("/")
        if parts[0].endswith(".data"):
            parts = parts[2:] if parts[1:2] in (["purelib"], ["platlib"]) else []
        if parts[:1] == ["src"]:
            parts = parts[1:]
        is_package = len(parts) > 1 and (archive.suffix == ".whl" or parts[1] == "__init__.py")
        if is_package or (len(parts) == 1 and parts[0].endswith(".py")):
            found.add(parts[0].partition(".")[0] if len(parts) == 1 else parts[0])
    return {name for name in found if not NO_PACKAGE.search(name)} - {"setup", "conftest"}


def fetched(package: str, folder: Path) -> Path:
    """The newest archive of a package."""
    words = "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check"
    output_of(sys.executable, *words, "-d", folder, package)
    (archive,) = folder.iterdir()
    return archive


def clash(package: str) -> str:
    """A line: the modules of ours that a package has too."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = fetched(package, Path(folder))
        except CommandFailed as error:
            return f"{package}: not fetched: {str(error).splitlines()[-1]}"
        shared = sorted(modules(archive) & set(PACKAGES))
        return f"{archive.name}: {', '.join(shared) or 'none of our names'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is shared; 0 whatever it is, as docs/decisions.md judges it."""
    parser = argparse.ArgumentParser(prog="python -m release.names", description=__doc__)
    parser.add_argument("--list", type=Path, metavar="FILE", help="names of packages, a line each")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    request = parser.parse_args(arguments)
    if not request.list and not request.packages:
        parser.error("nothing to look at: give --list FILE or packages")
    if request.list:
        lines = request.list.read_text(encoding="utf-8").splitlines()
        names = [line.partition("\t")[0].strip() for line in lines if line.strip()]
        same = of_our_names(names)
        print(f"{len(names)} names listed; called as one of ours: {', '.join(same) or 'none'}")
    for package in request.packages:
        print(clash(package), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
