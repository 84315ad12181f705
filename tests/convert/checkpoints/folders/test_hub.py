"""OWNER/NAME[@REVISION] in place of a folder, against a Hub on the loopback address.

Commands run in a process of their own, as huggingface_hub reads its environment once.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from folders_of_hub import program
from messages import says
from translate_cases import ROOT

pytest.importorskip("huggingface_hub")

ID = "Helsinki-NLP/opus-mt-en-de"
CHILD = """
import contextlib, io, json, sys
{before}
from convert.__main__ import main
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""
WITHOUT = "sys.modules['huggingface_hub'] = None"
FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def repositories(hub_folders, place):
    """A plain repository, one of shards beside other formats, gated and private ones, one of ours.

    The last has no weights.
    """
    from convert.conversion import ConversionRequest, convert

    plain = hub_folders.copy("marian", place / "plain")
    (plain / "README.md").write_text("# A card")
    (plain / "tf_model.h5").write_bytes(b"\x89HDF")
    (plain / "pytorch_model.bin").write_bytes(b"not this one")
    (plain / "runs").mkdir()
    (plain / "runs/events.txt").write_text("x")
    request = ConversionRequest(plain, place / "shards", to="marian", shard_size=20_000)
    convert(request)
    (place / "shards/flax_model.msgpack").write_bytes(b"not this one")
    convert(ConversionRequest(plain, place / "ours", to="torch"))
    empty = place / "empty"
    empty.mkdir()
    shutil.copy(plain / "config.json", empty)
    (empty / "tf_model.h5").write_bytes(b"\x89HDF")
    gated = {"gated/asked": plain, "gated/login": plain, "away/model": plain}
    return {ID: plain, "org/shards": place / "shards", "org/ours": place / "ours",
            "org/empty": empty, **gated}  # fmt: skip


@pytest.fixture(scope="module")
def hub(repositories):
    """The Hub; files of gated/* are refused as huggingface.co refuses them."""
    fake = program("fake_hub")

    class Refusing(fake.Handler):
        def file(self, id, revision, path):
            if id == "gated/asked":
                told = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
                return 403, told, b"Access is restricted"
            if id == "away/model" and path == "model.safetensors":
                return 403, {}, b"Forbidden"
            if id == "gated/login":
                return 401, {"X-Error-Message": "Invalid username or password."}, b"Unauthorized"
            return super().file(id, revision, path)

        def info(self, id, revision=None):
            if id == "private/model":
                told = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
                return 401, told, b"Repository not found"
            return super().info(id, revision)

    with fake.FakeHub(repositories, revisions=["v1", "refs/pr/1"]) as running:
        running.server.RequestHandlerClass = type("Bound", (Refusing,), {"hub": running})
        yield running


@pytest.fixture(scope="module")
def run(hub, place):
    """A function: run commands in one process of its own; (status, output, errors) of each."""

    def run(*commands, before="", **changes):
        kept = {name: x for name, x in os.environ.items() if not name.startswith("HF_")}
        env = kept | {"HF_ENDPOINT": hub.address, "HF_HOME": str(place / "home")}
        env |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"} | changes
        done = subprocess.run(
            [sys.executable, "-c", CHILD.format(before=before), json.dumps(commands)],
            cwd=place, capture_output=True, text=True, timeout=120, env=env,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="module")
def got(run, hub):
    """What is converted from the Hub, once, and which files were asked for."""
    hub.requests.clear()
    commands = [
        [ID, "new", "--to", "torch"],
        [f"{ID}@v1", "tagged", "--to", "marian"],
        ["org/shards", "joined", "--to", "torch"],
        ["org/ours@refs/pr/1", "again", "--to", "marian"],
    ]
    told = run(*commands)
    wanted = [re.search("/resolve/[^/]+/(.+)", path) for _, path, _ in hub.requests]
    return told, {found[1] for found in wanted if found}


def test_it_is_the_folder(got, repositories, place) -> None:
    told, _ = got
    assert [status for status, _, _ in told] == [0, 0, 0, 0], told
    plain = repositories[ID]
    for name in ("README.md", "config.json", "generation_config.json"):
        assert (place / "new/original" / name).read_bytes() == (plain / name).read_bytes()
    for back in ("tagged", "again"):
        for name in ("vocab.json", "source.spm", "README.md", "config.json", "model.safetensors"):
            assert (place / back / name).read_bytes() == (plain / name).read_bytes()
    same = (place / "new/model.safetensors").read_bytes()
    assert (place / "joined/model.safetensors").read_bytes() == same


def test_no_more_is_got_than_is_needed(got) -> None:
    """One set of weights by the order that is stated, no other format and no sub-folder."""
    _, names = got
    assert {"model.safetensors", "model.safetensors.index.json", "README.md"} <= names
    assert "vocabulary/source.spm" in names and "original/config.json" in names
    unwanted = {"tf_model.h5", "pytorch_model.bin", "flax_model.msgpack", "runs/events.txt"}
    assert names.isdisjoint(unwanted)


def test_the_account_has_the_commit(got, hub, place) -> None:
    content = json.loads((place / "tagged/conversion.json").read_text())
    commit = hub.repositories[ID].commit
    assert content["hub"] == {"repository": ID, "revision": "v1", "commit": commit}
    assert content["files"]["tf_model.h5"]["reason"] == "not needed, and not got from the Hub"
    assert content["files"]["pytorch_model.bin"]["what"] == "left out"
    says(got[0][1][1], f"{ID}@{commit}")


def test_what_cannot_be_got_is_one_line(run, hub) -> None:
    expected = {
        "nobody/nothing": ("does not exist here", hub.address, "no repository nobody/nothing"),
        f"{ID}@v2": ("does not exist here", "no revision v2"),
        "private/model": ("no repository private/model, or none for you", "HF_TOKEN"),
        "gated/asked": ("gated", "ask for access", f"{hub.address}/gated/asked", "HF_TOKEN"),
        "gated/login": ("401", "hf auth login"),
        "away/model": ("lets away/model not be read", "status 403", "hf auth login"),
        "org/empty": ("no weights that are read here", "tf_model.h5"),
        "a--b/model": ("a--b/model does not exist",),
        "runs/demo/best": ("runs/demo/best does not exist",),
    }
    told = run(*(["inspect", name] for name in expected))
    for (status, out, err), parts in zip(told, expected.values(), strict=True):
        assert (status, out) == (2, "") and err.count("\n") == 1
        says(err, *parts)


def test_a_folder_that_is_there_is_no_repository(run, hub, place) -> None:
    (place / "org/shards").mkdir(parents=True)
    hub.requests.clear()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, place / "org")
        ((status, _, err),) = run(["inspect", "org/shards"])
    assert status == 2 and "should hold one of" in err
    assert not hub.requests


@pytest.mark.usefixtures("got")
def test_offline_and_without_an_answer_the_cache_is_read(run, hub) -> None:
    hub.requests.clear()
    for changes, why in (
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub does not answer"),
    ):
        known, tagged, unknown = run(
            ["inspect", ID], ["inspect", f"{ID}@v1"], ["inspect", f"{ID}@v3"], **changes
        )
        assert (known[0], tagged[0], unknown[0]) == (0, 0, 2)
        says(known[1], why, ID)
        assert unknown[2].count("\n") == 1
        says(unknown[2], "does not exist here")
    assert not hub.requests


def test_a_hub_that_answers_late_is_asked_again(run, hub) -> None:
    hub.flaky.add(f"/{ID}/resolve/{hub.repositories[ID].commit}/README.md")
    ((status, _, err),) = run(["inspect", ID], HF_HOME="fresh")
    assert (status, err) == (0, "")


def test_without_the_library_and_on_a_full_disk(run) -> None:
    ((status, _, err),) = run(["inspect", ID], before=WITHOUT)
    assert status == 2 and err.count("\n") == 1
    says(err, f"{ID} does not exist", "pip install 'twinformer[hub]'")
    ((status, _, err),) = run(["inspect", ID], before=FULL, HF_HOME="full")
    assert status == 2 and err.count("\n") == 1
    says(err, "cannot be kept", "allows no file of that size")
