"""python -m convert: where the config comes from, and what is refused, leaving nothing behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from convert_cases import CONFIG, config_flags, convert, fail, snapshot, write_run
from messages import faults_say, saying, says

from convert.__main__ import main
from convert.conversion.opening import open_model
from convert.core.tensors import Held
from convert.formats.safetensors import write_safetensors
from transformer_spec import TransformerConfig, UserError, initial_weights

ROOT = Path(__file__).resolve().parents[3]


class TestConfigs:
    def test_file_with_flags_on_top(self, tmp_path):
        write_safetensors(tmp_path / "m.safetensors", Held(initial_weights(CONFIG, 1)))
        plain = {k: v for k, v in CONFIG.to_dict().items() if k != "max_length"}
        (tmp_path / "plain.json").write_text(json.dumps(plain | {"dropout": 0.5}))
        convert(tmp_path / "m.safetensors", tmp_path / "a", "--to", "torch", "--config",
                tmp_path / "plain.json", "--max-length", "5", "--dropout", "0.1")  # fmt: skip
        assert TransformerConfig.load(tmp_path / "a" / "config.json") == CONFIG
        config = tmp_path / "a" / "config.json"
        convert(tmp_path / "m.safetensors", tmp_path / "b", "--to", "torch", "--config", config)
        assert TransformerConfig.load(tmp_path / "b" / "config.json") == CONFIG

    def test_without_config(self, tmp_path, capsys):
        write_safetensors(tmp_path / "m.safetensors", Held(initial_weights(CONFIG, 1)))
        error = fail(capsys, tmp_path / "m.safetensors", tmp_path / "d", "--to", "torch")
        says(error, "without config.json", "--config")
        error = fail(capsys, tmp_path / "m.safetensors", tmp_path / "d", "--to", "torch",
                     "--hidden-dim", "6")  # fmt: skip
        assert "7 faults" in error and "missing key 'num_heads'" in error

    def test_two_configs(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", "torch")
        error = fail(capsys, run, tmp_path / "d", "--to", "flax", "--hidden-dim", "6")
        says(error, "config.json", "leave out", "--config")

    def test_every_field_has_a_flag(self, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        for name in CONFIG.to_dict():
            assert "--" + name.replace("_", "-") in text
        for usage in ("SOURCE DEST --to FAMILY", "inspect CHECKPOINT", "average RUN DEST"):
            assert f"{usage} [" in text


class TestRefusals:
    @pytest.mark.parametrize("dest", ["run", "run/new", "file", "link", "run/checkpoints/x"])
    def test_never_in_place_and_never_over_something(self, tmp_path, capsys, dest):
        run = write_run(tmp_path / "run", "torch")
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        before = snapshot(tmp_path)
        error = fail(capsys, run, tmp_path / dest, "--to", "flax")
        assert "exists already" in error or "is inside" in error
        assert snapshot(tmp_path) == before

    def test_all_faults_in_one_error(self, tmp_path, capsys):
        weights = initial_weights(CONFIG, 1)
        weights["encoder.embedding.weight"] = weights["encoder.embedding.weight"].T.copy()
        weights["decoder.finalFc.bias"] = np.zeros(11, np.int32)
        weights["more"] = weights.pop("encoder.pos_embedding.weight")
        write_safetensors(tmp_path / "m.safetensors", Held(weights))
        error = fail(capsys, tmp_path / "m.safetensors", tmp_path / "d", "--to", "flax",
                     *config_flags(CONFIG))  # fmt: skip
        assert "4 faults" in error
        for parts in (
            ("shape", "'encoder.embedding.weight'", "float32 [6, 11]", "expected float [11, 6]"),
            ("missing", "'encoder.pos_embedding.weight'", "expected float [5, 6]"),
            ("dtype", "'decoder.finalFc.bias'", "int32 [11]", "expected float [11]"),
            ("extra", "'more'", "float32 [5, 6]"),
        ):
            says(error, *parts)
        assert not (tmp_path / "d").exists()

    def test_a_false_tie_leaves_nothing(self, tmp_path, capsys):
        weights = initial_weights(CONFIG, 1)
        weights["decoder.finalFc.weight"] = weights["decoder.embedding.weight"] + 1
        write_safetensors(tmp_path / "m.safetensors", Held(weights))
        error = fail(capsys, tmp_path / "m.safetensors", tmp_path / "d", "--to", "flax",
                     *config_flags(CONFIG))  # fmt: skip
        assert "decoder.embedding.weight, decoder.finalFc.weight" in error and "differ" in error
        assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]

    @pytest.mark.parametrize("name", ["nothing", "empty", "text.txt"])
    def test_no_weights(self, tmp_path, capsys, name):
        (tmp_path / "empty").mkdir()
        (tmp_path / "text.txt").write_text("some text, which is no weights")
        flags = config_flags(CONFIG)
        error = fail(capsys, tmp_path / name, tmp_path / "d", "--to", "flax", *flags)
        assert "does not exist" in error or "should hold" in error or "no weight file" in error

    def test_truncated_checkpoint(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", "torch")
        path = run / "checkpoints" / "step_00000020" / "optimizer.safetensors"
        path.write_bytes(path.read_bytes()[:-3])
        assert f"{path} is truncated" in fail(capsys, run, tmp_path / "d", "--to", "flax")

    def test_container_that_does_not_hold_the_family(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", "torch")
        error = fail(capsys, run, tmp_path / "d", "--to", "flax", "--container", "pt")
        says(error, "--to flax", "orbax", "safetensors", "not pt")

    @pytest.mark.parametrize(
        ("flags", "fault"),
        [
            (["--to=torch", "--zzzz"], "unrecognized arguments: --zzzz; see --help"),
            (["--to=torch", "--zzzz", "1"], "unrecognized arguments: --zzzz; see --help"),
            (["--to=torch", "zzzz"], "unrecognized arguments: zzzz; see --help"),
            (["--to=martian"], "argument --to: invalid choice: 'martian'"),
            (["--to=torch", "--hidden-dim=x"], "argument --hidden-dim: invalid"),
            (["--to=torch", "--hidden-dms=3"], "for --hidden-dms did you mean --hidden-dim?"),
            (["--tooo", "flax"], "for --tooo did you mean --to?"),
        ],
    )
    def test_unknown_flags(self, tmp_path, capsys, flags, fault):
        error = fail(capsys, tmp_path, tmp_path / "d", *flags)
        assert error.startswith("error: ") and fault in error and "Traceback" not in error

    def test_unknown_flags_of_the_other_commands(self, tmp_path, capsys):
        assert "for --hiden-dim did you mean --hidden-dim" in fail(
            capsys, "inspect", tmp_path, "--hiden-dim", "8"
        )
        error = fail(capsys, "average", tmp_path)
        says(error, "error:", "required: DEST", "--help")
        assert error.count("\n") == 1

    def test_a_file_of_ours_without_weights(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", "torch")
        file = run / "checkpoints/step_00000010/optimizer.safetensors"
        error = fail(capsys, file, tmp_path / "d", "--to", "torch")
        says(error, file, "optimizer", "no weights", "folder", file.parent)
        convert("inspect", file)
        says(capsys.readouterr().out, "optimizer", "no weights", "folder", file.parent)

    def test_the_folder_of_checkpoints(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", "torch", (10, 20, 30, 40))
        error = fail(capsys, run / "checkpoints", tmp_path / "d", "--to", "torch")
        newest = "step_00000020, step_00000030, step_00000040 (1 older)"
        says(error, f"the run, {run}", newest)

    @pytest.mark.parametrize("names", ["ours", "torch-nn"])
    def test_settings_that_nobody_has(self, tmp_path, capsys, names):
        run = write_run(tmp_path / "run", "torch")
        flags = ["--from", "torch-nn"] if names == "torch-nn" else []
        flags += ["--ignore-setting", "foo", "--to", "torch"]
        error = fail(capsys, run, tmp_path / "d", *flags)
        says(error, "--ignore-setting foo", "no such setting", names)
        assert not (tmp_path / "d").exists()

    def test_a_folder_without_vocabularies_is_noted(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", "torch")
        convert(run, tmp_path / "text", "--to", "torch")
        assert "reads ids" not in capsys.readouterr().out
        shutil.rmtree(run / "vocabulary")
        convert(run, tmp_path / "ids", "--to", "flax")
        says(capsys.readouterr().out, "reads ids", run, "vocabulary/")
        with pytest.raises(UserError, check=saying(tmp_path / "ids/vocabulary", "copy", "save")):
            open_model(tmp_path / "ids").text()

    def test_full_disk_leaves_nothing(self, tmp_path, capsys, monkeypatch):
        run = write_run(tmp_path / "run", "torch")

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("convert.formats.safetensors.place_arrays", full)
        error = fail(capsys, run, tmp_path / "d", "--to", "torch")
        assert "No space left on device" in error
        assert [p.name for p in tmp_path.iterdir()] == ["run"]

    def test_interrupted(self, tmp_path, capsys, monkeypatch):
        run = write_run(tmp_path / "run", "torch")

        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("convert.formats.safetensors.place_arrays", interrupt)
        assert main([str(run), str(tmp_path / "d"), "--to", "torch"]) == 130
        assert "interrupted" in capsys.readouterr().err
        assert [p.name for p in tmp_path.iterdir()] == ["run"]

    def test_file_that_may_not_grow_leaves_nothing(self, tmp_path):
        """The system itself refuses to write on, in the middle of the weights."""
        write_run(tmp_path / "run", "torch")
        command = f"ulimit -f 4; exec {sys.executable} -m convert run d --to torch"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: cannot write") and "too large" in done.stderr
        assert [p.name for p in tmp_path.iterdir()] == ["run"]

    @pytest.mark.parametrize(
        "command", [["inspect", "run"], ["run", "d", "--to=flax", "--dry-run"]]
    )
    def test_standard_output_that_is_full_or_gone(self, tmp_path, command):
        write_run(tmp_path / "run", "torch")
        arguments = [sys.executable, "-m", "convert", *command]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}

        def finished(output):
            done = subprocess.run(
                arguments, stdout=output, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                env=environment,
            )  # fmt: skip
            return done.returncode, done.stderr

        with open("/dev/full", "w") as full:
            status, said = finished(full)
        assert status == 2
        faults_say(said.splitlines(), ("error:", "No space left on device"))
        reader, writer = os.pipe()
        os.close(reader)
        assert finished(writer) == (1, "")
        os.close(writer)
