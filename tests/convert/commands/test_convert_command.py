"""python -m convert: every source, every target, round trips, refusals, nothing half-written."""

import hashlib
import json
import os
import pty
import subprocess
import sys
import termios

import pytest
from convert_cases import (
    CONFIG,
    assert_same_arrays,
    checkpoint,
    config_flags,
    convert,
    fail,
    snapshot,
    write_run,
)
from messages import says

from convert.checkpoints import load_weights_of, read_checkpoint
from convert.checkpoints.layouts import ORBAX
from convert.checkpoints.reading import open_content
from convert.core.tensors import Held
from convert.formats.safetensors import open_safetensors, write_safetensors
from transformer_spec import TransformerConfig, initial_weights, tied_weights

pytest.importorskip("orbax.checkpoint")
FILES = ("model.safetensors", "optimizer.safetensors")


class TestRoundTrips:
    @pytest.mark.parametrize("container", ["orbax", "safetensors"])
    def test_torch_run_to_flax_and_back_is_byte_identical(self, tmp_path, container):
        run = write_run(tmp_path / "run", "torch")
        before = snapshot(run)
        convert(run, tmp_path / "flax", "--to", "flax", "--container", container)
        convert(tmp_path / "flax", tmp_path / "torch", "--to", "torch")
        for file in FILES:
            original = run / "checkpoints" / "step_00000020" / file
            assert (tmp_path / "torch" / file).read_bytes() == original.read_bytes(), file
        assert snapshot(run) == before

    def test_flax_run_to_torch_and_back_holds_the_same(self, tmp_path):
        run = write_run(tmp_path / "run", "flax", best=10)
        convert(run, tmp_path / "torch", "--to", "torch")
        convert(tmp_path / "torch", tmp_path / "flax", "--to", "flax")
        one = open_content(run / "best")
        other = open_content(tmp_path / "flax")
        assert one.count == other.count == 10
        assert_same_arrays(one.tensors.read_all(), other.tensors.read_all())

    @pytest.mark.parametrize("to", ["torch", "flax"])
    def test_pickle_and_back(self, tmp_path, to):
        torch = pytest.importorskip("torch")
        state = {n: torch.from_numpy(a) for n, a in initial_weights(CONFIG, 5).items()}
        for alias, kept in tied_weights(CONFIG).items():
            state[alias] = state[kept]
        torch.save(state, tmp_path / "m.pt")
        convert(tmp_path / "m.pt", tmp_path / "one", "--to", to, *config_flags(CONFIG))
        convert(tmp_path / "one", tmp_path / "two", "--to", "torch", "--container", "pt")
        back = torch.load(tmp_path / "two" / "model.pt", weights_only=True)
        expected = initial_weights(CONFIG, 5)
        assert_same_arrays({n: t.numpy() for n, t in back.items()}, expected)

    def test_files_without_orbax_need_no_framework(self, tmp_path):
        run = write_run(tmp_path / "run", "torch")
        program = (
            "import sys\n"
            "for name in ('torch', 'jax', 'flax', 'orbax', 'tensorstore'):\n"
            "    sys.modules[name] = None\n"
            "from convert.__main__ import main\n"
            f"sys.exit(main([{str(run)!r}, {str(tmp_path / 'f')!r}, '--to', 'flax',"
            " '--container', 'safetensors']))"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


class TestWhatIsWritten:
    def test_a_converted_run_stays_usable(self, tmp_path, capsys):
        run = write_run(tmp_path / "run", "torch")
        convert(run, tmp_path / "flax", "--to", "flax")
        assert sorted(p.name for p in (tmp_path / "flax").iterdir()) == [
            "config.json", "conversion.json", "orbax", "settings.json", "vocabulary",
        ]  # fmt: skip
        place = "vocabulary/target.json"
        assert (tmp_path / "flax" / place).read_bytes() == (run / place).read_bytes()
        config, weights = load_weights_of(tmp_path / "flax")
        assert config == CONFIG
        assert_same_arrays(weights, initial_weights(CONFIG, 20))
        output = capsys.readouterr()
        assert output.out.startswith("converted run ")
        assert "optimizer moments carried (20 steps, " in output.out
        assert len(output.out.splitlines()) == 1
        assert output.err == ""

    def test_moments_are_carried(self, tmp_path):
        run = write_run(tmp_path / "run", "torch")
        convert(run / "checkpoints/step_00000010", tmp_path / "flax", "--to", "flax")
        read, expected = read_checkpoint(tmp_path / "flax"), checkpoint(seed=10, count=10)
        assert_same_arrays(read.first_moments, expected.first_moments)
        assert_same_arrays(read.second_moments, expected.second_moments)
        assert read.count == 10

    def test_without_optimizer_it_says_so(self, tmp_path, capsys):
        write_safetensors(tmp_path / "m.safetensors", Held(initial_weights(CONFIG, 1)))
        flags = config_flags(CONFIG)
        convert(tmp_path / "m.safetensors", tmp_path / "flax", "--to", "flax", *flags)
        assert "the optimizer starts fresh" in capsys.readouterr().out
        assert open_content(tmp_path / "flax").count is None

    def test_config_says_what_is_tied(self, tmp_path):
        convert(write_run(tmp_path / "run", "flax"), tmp_path / "torch", "--to", "torch")
        content = json.loads((tmp_path / "torch" / "config.json").read_text())
        assert content["tied_weights"] == {"decoder.finalFc.weight": "decoder.embedding.weight"}
        assert TransformerConfig.load(tmp_path / "torch" / "config.json") == CONFIG

    def test_the_ledger_holds_every_tensor_of_both_sides(self, tmp_path):
        run = write_run(tmp_path / "run", "torch")
        convert(run, tmp_path / "flax", "--to", "flax")
        ledger = json.loads((tmp_path / "flax" / "conversion.json").read_text())
        source = open_content(run / "checkpoints" / "step_00000020").tensors
        target = open_content(tmp_path / "flax").tensors
        for tensors, entries in ((source, ledger["sources"]), (target, ledger["targets"])):
            assert set(entries) == set(tensors)
            for name, entry in entries.items():
                array = tensors.read(name)
                assert entry["sha256"] == hashlib.sha256(array.tobytes()).hexdigest()
                assert (entry["shape"], entry["bytes"]) == (list(array.shape), array.nbytes)
        name = "encoder.enc_layers.0.ffn.fc1"
        entry = ledger["targets"][f"{ORBAX.first}{name}.kernel"]
        assert (entry["what"], entry["from"]) == ("transposed", [f"exp_avg/{name}.weight"])
        entry = ledger["sources"][f"{name}.bias"]
        assert (entry["what"], entry["becomes"]) == ("copied", [f"params.{name}.bias"])
        assert ledger["optimizer_steps"] == 20

    def test_sharded_source(self, tmp_path):
        weights = initial_weights(CONFIG, 2)
        parts = {"a.safetensors": list(weights)[:9], "b.safetensors": list(weights)[9:]}
        for file, names in parts.items():
            write_safetensors(tmp_path / file, Held({n: weights[n] for n in names}))
        index = {"weight_map": {n: file for file, names in parts.items() for n in names}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        path = tmp_path / "model.safetensors.index.json"
        convert(path, tmp_path / "torch", "--to", "torch", *config_flags(CONFIG))
        assert_same_arrays(open_safetensors(tmp_path / "torch" / FILES[0]).read_all(), weights)

    def test_dry_run_reads_and_writes_nothing(self, tmp_path, capsys, monkeypatch):
        run = write_run(tmp_path / "run", "torch")
        monkeypatch.setattr("convert.formats.safetensors.SafetensorsFile.read", None)
        convert(run, tmp_path / "flax", "--to", "flax", "--dry-run")
        assert [p.name for p in tmp_path.iterdir()] == ["run"]
        lines = capsys.readouterr().out.splitlines()
        name = "encoder.enc_layers.0.ffn.fc1"
        says(lines, f"{name}.weight -> params.{name}.kernel", "float32 [6, 7]", "transposed")
        assert lines[-1].startswith("would convert run ")
        files = [line for line in lines if line.endswith(("carried", ")")) and "float" not in line]
        assert len(files) == 7
        tensors = 3 * len(initial_weights(CONFIG, 0)) - 2  # one frozen bias
        assert len(lines) == 1 + tensors + len(files)

    def test_bare_orbax_folder(self, tmp_path):
        from convert import torch_to_flax
        from convert.formats.orbax_writer import write_orbax

        weights = initial_weights(CONFIG, 4)
        write_orbax(tmp_path / "o", Held(torch_to_flax(weights)))
        convert(tmp_path / "o", tmp_path / "torch", "--to", "torch", *config_flags(CONFIG))
        assert_same_arrays(load_weights_of(tmp_path / "torch")[1], weights)


def test_progress_bar_on_a_terminal_only(tmp_path):
    run = write_run(tmp_path / "run", "torch")
    command = [sys.executable, "-m", "convert", run, tmp_path / "d", "--to", "torch"]
    keyboard, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = b"".join(iter(lambda: read_terminal(keyboard), b""))
        printed, _ = process.communicate(timeout=60)
    os.close(keyboard)
    assert b"0.00/14.6k" in shown and b"B/s" in shown
    assert printed.startswith(b"converted run") and b"B/s" not in printed


def read_terminal(descriptor):
    """What was written to a terminal; nothing once every writer has closed it."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize("words", [("", "out"), ("run", "")])
def test_an_empty_path_is_not_the_current_folder(words, capsys):
    assert "'' is no path; the current folder is ." in fail(capsys, *words, "--to", "torch")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "b", "--to", "nllb"], ("its class is m2m100", "--to m2m100")),
        (["a", "b", "--to", "mBART-50"], ("its class is mbart", "--to mbart")),
        (["a", "b", "--to", "t5-small"], ("its class is t5", "--to t5")),
        (["a", "b", "--to", "mt0"], ("its class is mt5", "--to mt5")),
        (["opus-mt-en-de", "b", "--to", "flax"], ("does not exist", "OWNER/NAME")),
    ],
)
def test_a_published_name_is_told_its_name_here(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    says(fail(capsys, *words), *said)
