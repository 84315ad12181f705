"""The wheel, installed in an environment of its own, works outside the checkout.

The environment has this one's libraries by a path file, so that nothing is downloaded; the packages
of the project come from the wheel alone.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from release.dependencies import PACKAGES

ROOT = Path(__file__).parents[2]
# Of the tests' environment, which no user has; training keeps the second, as it would compile long.
OURS = ("PYTHONPATH", "XLA_FLAGS")
TINY = (
    "--hidden-dim 8 --inner-dim 8 --num-heads 2 --num-encoder-layers 1 --num-decoder-layers 1 "
    "--max-length 16 --steps 2 --batch-tokens 32 --batch-shapes 1 --valid-examples 2 "
    "--test-examples 2 --source-vocabulary characters --target-vocabulary characters --beam 1"
).split()
PROGRAM = """
import json, sys, twinformer
import convert, parity, torch_transformer, flax_transformer, training_recipe, transformer_spec
made = twinformer.convert("run", "mine", to="flax")
twin = twinformer.load("mine", backend="jax")
model = twinformer.load("mine", backend="torch")
said = {
    backend: twinformer.Translator("mine", backend=backend)(["ab"], beam=2)[0].text
    for backend in ("jax", "torch")
}
report = twinformer.compare("run", "mine", precisions=(), gradients=False)
page = report.save_html("parity.html").read_text(encoding="utf-8")
try:
    twinformer.train(stepz=1)
except twinformer.UserError as error:
    faults = error.faults
print(json.dumps({
    "places": [sys.modules[name].__file__ for name in %r],
    "said": said, "same": report.same, "rows": len(report.rows), "faults": len(faults),
    "page": page.count('<tr role="row" id="row-'),
    "version": twinformer.__version__,
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("the files of the project are listed by git, which this copy has none of")
    for name in listed.stdout.splitlines():
        place = folder / "source" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            place.write_bytes((ROOT / name).read_bytes())
    command = "-m pip wheel -q --no-deps --no-build-isolation --no-index -w".split()
    done = subprocess.run(
        [sys.executable, *command, folder, folder / "source"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of an environment that has the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = "-m pip -q --python".split()
    there = [*command, str(folder / "bin/python"), "install", "--no-deps", "--no-index", "-I"]
    done = subprocess.run([sys.executable, *there, wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture
def run(installed, tmp_path):
    """Run a program of the environment in an empty folder; what it printed."""

    def call(program: str, *arguments: object, without: tuple[str, ...] = OURS) -> str:
        environment = {k: v for k, v in os.environ.items() if k not in without}
        done = subprocess.run(
            [installed / program, *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return call


def test_what_it_holds(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == set(PACKAGES)
    assert all(f"{package}/py.typed" in names for package in PACKAGES)
    recipes = {name for name in names if name.startswith("training_recipe/recipes/")}
    assert "training_recipe/recipes/cmudict.toml" in recipes and len(recipes) == 7
    assert {"parity/page/style.css", "parity/page/script.js"} < set(names)


def test_commands_and_library_outside_the_checkout(run, tmp_path):
    pairs = [f"{a}{b}\t{b}{a}" for a in "abcdefg" for b in "abcdefg"]
    (tmp_path / "pairs.tsv").write_text("Q\tA\n" + "\n".join(pairs) + "\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("twinformer", "--version") == f"twinformer {project['version']}\n"
    data = "--data", "pairs.tsv", "--columns", "Q,A", "--out", "run"
    said = run("twinformer", "train", "--backend", "jax", *data, *TINY, without=OURS[:1])
    assert "try: twinformer translate run" in said
    line = run("twinformer", "translate", "run", "ab", "--backend", "torch", "--beam", 2)
    run("twinformer", "convert", "run", "theirs", "--to", "torch")
    told = json.loads(run("python", "-c", PROGRAM % (PACKAGES,)).splitlines()[-1])
    assert all(".whl" not in place and str(ROOT) not in place for place in told["places"])
    assert told["said"] == {"jax": line.rstrip("\n"), "torch": line.rstrip("\n")}
    assert told["same"] and told["rows"] > 5 and told["faults"] == 1
    assert told["page"] == told["rows"]
    assert "twinformer diversify" in run("twinformer", "diversify", "--help")
    assert "cmudict" in run("twinformer", "train", "--help")
