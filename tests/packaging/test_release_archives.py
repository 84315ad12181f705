"""What the archives of a release hold, and what is found in those that hold something else."""

import io
import tarfile
import tomllib
import zipfile

from release.archives import (
    BESIDE,
    DATA,
    METADATA,
    contents,
    of_packages,
    passed_by_twine,
    same_files,
    sdist_holds,
    wheel_holds,
)
from release.findings import ROOT

FILES = [
    *("convert/__init__.py", "convert/py.typed", "training_recipe/recipes/a.toml", "train.py"),
    *("training_recipe/py.typed", "parity/page/a.js", "parity/py.typed"),
    *("tests/test_a.py", "benchmarks/train.py", "convert/notes.md", "convert/naming/tables/b.toml"),
]
INSIDE = {
    *("convert/__init__.py", "convert/py.typed", "training_recipe/recipes/a.toml"),
    *("training_recipe/py.typed", "parity/page/a.js", "parity/py.typed"),
    "convert/naming/tables/b.toml",
}
WHEEL = INSIDE | {f"twinformer-0.2.0.dist-info/{name}" for name in METADATA}
SDIST = INSIDE | set(BESIDE) | {"PKG-INFO", "setup.cfg", "twinformer.egg-info/SOURCES.txt"}


def test_what_belongs_to_the_packages():
    assert of_packages(FILES) == INSIDE


def test_data_is_what_is_declared():
    """Or a wheel has files that no check expects."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    declared = project["tool"]["setuptools"]["package-data"]
    names = [(name.replace(".", "/"), form) for name, forms in declared.items() for form in forms]
    assert sorted(f"{name}/{form}" for name, form in names) == sorted(DATA)


def test_a_package_without_its_mark_of_types():
    mark = "convert/py.typed"
    files = [name for name in FILES if name != mark]
    assert wheel_holds(WHEEL - {mark}, files).faults == [f"{mark} is not in the wheel"]


def test_a_wheel():
    assert not wheel_holds(WHEEL, FILES).faults
    assert wheel_holds(WHEEL - {"convert/py.typed"}, FILES).faults == [
        "convert/py.typed is not in the wheel"
    ]
    assert wheel_holds(WHEEL | {"tests/test_a.py", "benchmarks/train.py"}, FILES).faults == [
        "benchmarks/train.py is no part of a package",
        "tests/test_a.py is no part of a package",
    ]
    without = WHEEL - {"twinformer-0.2.0.dist-info/licenses/LICENSE"}
    assert wheel_holds(without, FILES).faults == ["its metadata lacks licenses/LICENSE"]
    more = WHEEL | {"twinformer-0.2.0.dist-info/notes"}
    assert wheel_holds(more, FILES).faults == ["its metadata has notes"]


def test_an_sdist():
    assert not sdist_holds(SDIST, FILES).faults
    assert sdist_holds(SDIST - {"LICENSE"}, FILES).faults == ["LICENSE is not in the sdist"]
    assert sdist_holds(SDIST | {"tests/test_a.py"}, FILES).faults == [
        "tests/test_a.py does not belong in the sdist"
    ]


def test_what_the_sdist_has_beside_the_packages_is_there():
    assert all((ROOT / name).is_file() for name in BESIDE)


def test_wheels_that_differ():
    assert not same_files({"a": b"1"}, {"a": b"1"}).faults
    told = same_files({"a": b"1", "b": b"2"}, {"a": b"0", "c": b"3"}).faults
    assert told == ["b is in one alone", "c is in one alone", "a differs"]


def test_files_of_both_kinds_of_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("convert/a.py", "1")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as sdist:
        member = tarfile.TarInfo("a-0.2/convert/a.py")
        member.size = 1
        sdist.addfile(member, io.BytesIO(b"1"))
        folder = tarfile.TarInfo("a-0.2/convert")
        folder.type = tarfile.DIRTYPE
        sdist.addfile(folder)
    assert contents(tmp_path / "a.whl") == contents(tmp_path / "a.tar.gz") == {"convert/a.py": b"1"}


def test_words_of_twine():
    good = "Checking dist/a.whl: PASSED\nChecking dist/a.tar.gz: PASSED\n"
    assert not passed_by_twine(good).faults
    assert not passed_by_twine(good.replace("PASSED", "\x1b[32mPASSED\x1b[0m")).faults
    assert passed_by_twine(good.replace("gz: PASSED", "gz: FAILED")).faults
    assert not passed_by_twine(good.replace("Checking ", "Checking \n")).faults
    assert passed_by_twine(good.replace("PASSED", "PASSED with warnings")).faults
    assert passed_by_twine("Checking dist/a.whl: PASSED\n").faults == [
        "twine looked at 1 archives and not at two"
    ]
