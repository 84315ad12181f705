"""Compiled programs on disk: where, for whom, and never in anybody's way."""

import os
import time

import jax
import pytest
from translate_cases import python

from flax_transformer import compilation_cache
from flax_transformer.compilation_cache import (
    MOST_BYTES,
    cache_folder,
    is_own,
    keep_compiled_programs,
    remove_old,
)
from twinformer import frameworks

KNOWN = set(jax.config.values)
OWN_SETTINGS = (
    "JAX_ENABLE_COMPILATION_CACHE",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
)
CODE = """
from flax_transformer import compilation_cache
compilation_cache.LEAST_SECONDS = 0.0
compilation_cache.keep_compiled_programs()
import jax
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
print(jax.jit(lambda x: x * x + 1)(3.0), sum(name.endswith("cache_hits") for name in hits))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's cache folder, with JAX told nothing of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in OWN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def settings(monkeypatch):
    """What JAX is told, beginning from its own defaults; JAX itself is left as it is."""
    held = {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": True}

    class Config:
        values = held
        update = staticmethod(held.__setitem__)

    monkeypatch.setattr(compilation_cache.jax, "config", Config)
    return held


def test_the_second_process_compiles_nothing(home, tmp_path, thorough):
    def said() -> str:
        finished = python(CODE, tmp_path)
        assert (finished.returncode, finished.stderr) == (0, "")
        return finished.stdout

    assert [said(), said()] == ["10.0 0\n", "10.0 1\n"]
    (folder,) = (home / "twinformer/jax").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    (entry,) = folder.glob("*-cache")
    if not thorough:
        return  # a third process imports for as long as the others
    os.truncate(entry, entry.stat().st_size // 2)
    assert said() == "10.0 0\n", "a damaged entry is neither used nor complained of"


@pytest.mark.usefixtures("both_frameworks")
def test_both_commands_keep_programs(monkeypatch):
    asked = []
    monkeypatch.setattr("flax_transformer.process.keep_compiled_programs", lambda: asked.append(1))
    frameworks.prepare_process("torch", "cpu")
    assert asked == []
    frameworks.prepare_process("jax", "cpu")
    assert asked == [1]


def test_it_lies_in_the_users_cache(home, settings):
    keep_compiled_programs()
    folder = cache_folder()
    assert settings["jax_compilation_cache_dir"] == str(folder)
    assert folder.parent == home / "twinformer/jax" and folder.is_dir()
    assert set(settings) <= KNOWN and len(settings) > 2


def test_jaxs_own_settings_go_first(home, settings):
    settings["jax_compilation_cache_dir"] = "elsewhere"
    keep_compiled_programs()
    settings |= {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": False}
    keep_compiled_programs()
    assert settings["jax_compilation_cache_dir"] is None and not home.exists()


def test_a_folder_that_cannot_be_made(home, settings):
    home.write_text("a file stands in the way")
    keep_compiled_programs()
    assert settings["jax_compilation_cache_dir"] is None


def test_folders_of_others_are_left_alone(tmp_path, monkeypatch):
    assert is_own(tmp_path / "new/folder") and is_own(tmp_path / "new/folder")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o775)
    assert not is_own(tmp_path / "open")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not is_own(tmp_path / "new/folder")
    monkeypatch.undo()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not is_own(tmp_path / "new/folder")


def test_machines_that_share_a_home_share_no_programs(home, monkeypatch):
    here = cache_folder()
    monkeypatch.setattr(compilation_cache, "instructions", lambda: "flags : fpu avx2")
    there = cache_folder()
    assert here.parent == there.parent and here != there


def test_old_entries_go_and_the_rest_stays_within_bounds(tmp_path):
    now = time.time()
    for name, age, size in (("a", 1, 10), ("b", 2, MOST_BYTES - 50), ("c", 3, 100), ("d", 31, 1)):
        path = tmp_path / f"machine-{name}/{name}-cache"
        path.parent.mkdir()
        with path.open("wb") as stream:
            stream.truncate(size)
        os.utime(path, (now, now - age * 24 * 3600))
    (tmp_path / "machine-a/other").write_text("is nobody's business")
    remove_old(tmp_path)
    left = sorted(path.name for path in tmp_path.glob("*/*"))
    assert left == ["a-cache", "b-cache", "other"]
