"""What lies beside weights is checked before it is carried, and what was left before is removed."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from convert_cases import convert, fail, write_run
from messages import says
from translate_cases import ROOT

from convert.__main__ import main

KILLED = """
import os, signal
from pathlib import Path
from convert.conversion import ConversionRequest, conversion
conversion.write_ledger = lambda *_: os.kill(os.getpid(), signal.{name})
from convert.__main__ import main
import sys
sys.argv[0] = "convert/__main__.py"
sys.exit(main(["run", "made", "--to", "torch"]))
"""


@pytest.mark.parametrize("damaged", ["vocabulary/source.json", "vocabulary/target.json"])
def test_a_damaged_vocabulary_is_left_out_and_said(tmp_path, capsys, damaged) -> None:
    run = write_run(tmp_path / "run", "torch")
    content = (run / damaged).read_text()
    (run / damaged).write_text(content[: len(content) // 2])
    convert(run, tmp_path / "made", "--to", "flax", "--container", "safetensors")
    says(capsys.readouterr().out, "warning", "vocabulary", "left out", run / damaged)
    assert not (tmp_path / "made" / "vocabulary").exists()
    assert (tmp_path / "made" / "model.safetensors").exists()


def test_a_vocabulary_of_another_model_and_damaged_settings(tmp_path, capsys) -> None:
    run = write_run(tmp_path / "run", "torch")
    (run / "vocabulary/source.json").write_text(
        '{"format_version": 1, "kind": "characters", "pieces": ["a"]}'
    )
    (run / "settings.json").write_text("[")
    convert(run, tmp_path / "made", "--to", "torch")
    said = capsys.readouterr().out
    says(said, "does not fit")
    says(said, "source vocabulary has 5 tokens", 11)
    says(said, "settings.json is left out")
    assert {"vocabulary", "settings.json"}.isdisjoint(os.listdir(tmp_path / "made"))


def test_a_sound_one_is_carried(tmp_path) -> None:
    run = write_run(tmp_path / "run", "torch")
    convert(run, tmp_path / "made", "--to", "torch")
    for name in ("source.json", "target.json"):
        before = (run / "vocabulary" / name).read_bytes()
        assert (tmp_path / "made" / "vocabulary" / name).read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_a_conversion_that_is_ended_leaves_nothing_for_good(tmp_path, capsys, name) -> None:
    write_run(tmp_path / "run", "torch")
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(name=name)], cwd=tmp_path, capture_output=True,
        text=True, timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    left = [path for path in tmp_path.iterdir() if path.name != "run"]
    if name != "SIGKILL":
        assert (done.returncode, left) == (128 + getattr(signal, name), [])
        assert done.stderr == "interrupted; nothing was written\n"
        return
    assert done.returncode == -signal.SIGKILL and len(left) == 1
    convert(tmp_path / "run", tmp_path / "made", "--to", "torch")
    says(capsys.readouterr().out, "removed", left[0])
    assert sorted(os.listdir(tmp_path)) == ["made", "run"]


def test_a_loop_of_links_and_names_that_no_system_takes(tmp_path, capsys) -> None:
    run = write_run(tmp_path / "run", "torch")
    (tmp_path / "loop").symlink_to("loop")
    says(fail(capsys, tmp_path / "loop", tmp_path / "made", "--to", "torch"), "loop", "circle")
    says(fail(capsys, run, tmp_path / "loop/made", "--to", "torch"), "loop/made")
    says(fail(capsys, run, tmp_path / ("x" * 256), "--to", "torch"), "shorter name")
    says(fail(capsys, "inspect", tmp_path / ("x" * 256)), "shorter name")
    for word in ("a\0b", "a\ud800"):
        says(fail(capsys, run, tmp_path / word, "--to", "torch"), "destination")
        says(fail(capsys, "inspect", word), "source")


def test_an_unknown_key_of_our_config(tmp_path, capsys) -> None:
    run = write_run(tmp_path / "run", "torch")
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"model"', '"modle": {}, "dropout": 1, "model"'))
    said = fail(capsys, run, tmp_path / "made", "--to", "torch")
    says(said, run / "config.json")
    says(said, "unknown key 'modle'", "model")
    says(said, "unknown key 'dropout'")


def test_endless_nesting(tmp_path, capsys) -> None:
    run = write_run(tmp_path / "run", "torch")
    (run / "config.json").write_text("[" * 100_000)
    says(fail(capsys, run, tmp_path / "made", "--to", "torch"), "config.json", "nested too deep")
    weights = run / "checkpoints/step_00000020/model.safetensors"
    (tmp_path / "deep.json").write_text('{"a":' * 100_000)
    words = ("--config", tmp_path / "deep.json", "--to", "torch")
    says(fail(capsys, weights, tmp_path / "made", *words), "deep.json", "nested too deep")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    np.savez(theirs / "model.npz", a=np.zeros(2, np.float32))
    (theirs / "config.json").write_text("[" * 100_000)
    said = fail(capsys, theirs, tmp_path / "made", "--to", "torch")
    says(said, "no known family", theirs / "config.json", "nested too deep")


def test_names_of_a_file_are_shown_with_their_control_characters_escaped(tmp_path, capsys) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "a\x1b[31m.pt"
    torch.save({"w\x1b[2J\nx": torch.ones(2), "n\x9b": {"v": torch.ones(1)}}, path)
    for words in (["inspect", path, "--key", "n\x9b"], ["inspect", path]):
        main([str(word) for word in words])
        output = capsys.readouterr()
        said = output.out + output.err
        assert "\x1b" not in said and "\x9b" not in said and "a\\x1b[31m.pt" in said
    torch.save({"w\x1b[2J\nx": torch.ones(2)}, path)
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "w\\x1b[2J\\nx  float32" in said and "\x1b" not in said


def test_a_run_with_a_best_checkpoint_has_nothing_to_warn_of(tmp_path, capsys) -> None:
    run = write_run(tmp_path / "run", "torch", best=10)
    (run / "curves.png").write_bytes(b"x")
    convert(run, tmp_path / "made", "--to", "torch")
    said = capsys.readouterr().out
    assert "warning" not in said
    found = json.loads((tmp_path / "made/conversion.json").read_text())["files"]
    left = {name for name, entry in found.items() if entry["what"] == "left out"}
    assert left == {"best", "checkpoints", "curves.png"}
    assert found["checkpoints/step_00000010/model.safetensors"]["what"] == "rewritten"
