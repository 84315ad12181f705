"""What is read from our own folders is compared with what was written, by every way to it."""

import dataclasses
import json
import random
import shutil
from collections import Counter

import numpy as np
import pytest
from convert_cases import (
    CONFIG,
    assert_same_arrays,
    checkpoint,
    convert,
    fail,
    snapshot,
    write_run,
)
from damage_cases import flip, flip_in_tensor, forget_tensors
from messages import says

import twinformer
from convert.checkpoints import (
    load_weights_of,
    open_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
)
from convert.checkpoints.reading import open_content
from convert.conversion import ConversionRequest, SourceRequest, inspect
from convert.conversion import convert as run_conversion
from convert.conversion.opening import open_model
from convert.conversion.sources.source import read_import
from convert.core.ledger import Fingerprint, Hashed
from convert.core.tensors import Held
from convert.formats.safetensors import open_safetensors, write_safetensors
from transformer_spec import UserError, initial_weights

pytest.importorskip("orbax.checkpoint")
NAME = "encoder.enc_layers.0.ffn.fc1.weight"
MODEL = "model.safetensors"


def of_run(tmp_path, twin="torch", best=10):
    return write_run(tmp_path / "run", twin, best=best)


def converted(tmp_path, *more, to="torch"):
    convert(of_run(tmp_path), tmp_path / "ours", "--to", to, *more)
    return tmp_path / "ours"


def everything(folder, verify=True):
    read = read_checkpoint(folder, verify)
    parts = read.weights, read.first_moments, read.second_moments
    return [{n: a.tobytes() for n, a in part.items()} for part in parts], read.count


class TestCheckpoints:
    @pytest.mark.parametrize("twin", ["torch", "flax"])
    def test_every_tensor_is_recorded(self, tmp_path, twin):
        step = of_run(tmp_path, twin) / "checkpoints/step_00000020"
        content = open_content(step)
        assert content.record is not None and content.record.count == 20
        assert set(content.tensors) <= set(content.record.hashes)
        found = everything(step)
        assert found == everything(step, verify=False) and found[1] == 20

    @pytest.mark.parametrize("place", ["best", "checkpoints/step_00000020"])
    def test_a_bit_in_the_middle(self, tmp_path, place):
        run = of_run(tmp_path)
        file = run / place / MODEL
        flip_in_tensor(file, NAME)
        with pytest.raises(UserError) as caught:
            load_weights_of(run / place)
        says(caught.value, f"{file} is damaged", repr(NAME), "1 of", "--no-verify")
        says(caught.value, "take another checkpoint")
        _, weights = load_weights_of(run / place, verify=False)
        assert (weights.pop(NAME) != initial_weights(CONFIG, 10)[NAME]).any()
        step, other = (20, "checkpoints/step_00000020") if place == "best" else (10, "best")
        assert_same_arrays(load_weights_of(run / other)[1], initial_weights(CONFIG, step))

    def test_all_that_differ_are_named_at_once(self, tmp_path):
        run = of_run(tmp_path)
        others = [NAME, "decoder.finalFc.bias", "encoder.embedding.weight"]
        for name in others:
            flip_in_tensor(run / "best" / MODEL, name)
        with pytest.raises(UserError) as caught:
            load_weights_of(run)
        says(caught.value, *map(repr, others), "3 of")

    def test_moments_and_the_step_count(self, tmp_path):
        step = of_run(tmp_path) / "checkpoints/step_00000020"
        file = step / "optimizer.safetensors"
        whole = file.read_bytes()
        flip_in_tensor(file, f"exp_avg_sq/{NAME}")
        read = read_checkpoint(step)
        assert set(read.first_moments) == set(read.second_moments)
        with pytest.raises(UserError) as caught:
            dict(read.second_moments)
        says(caught.value, "optimizer.safetensors is damaged", f"'exp_avg_sq/{NAME}'")
        assert load_weights_of(step)[0] == CONFIG, "what is not read is not judged"
        file.write_bytes(whole.replace(b'"count":"20"', b'"count":"28"'))
        with pytest.raises(UserError) as caught:
            read_checkpoint(step)
        says(caught.value, "28 steps", "20", "tensors.json", "--no-verify")
        assert read_checkpoint(step, verify=False).count == 28

    @pytest.mark.thorough
    def test_no_bit_of_an_orbax_folder_changes_numbers_unseen(self, tmp_path):
        """Small arrays are checked by tensorstore; large ones lie in files without a checksum."""
        large = dataclasses.replace(CONFIG, hidden_dim=64, inner_dim=96)
        write_flax_checkpoint(tmp_path, checkpoint(large, seed=3, count=7))
        expected, draw, found = everything(tmp_path), random.Random(0), Counter()
        files = sorted(path for path in (tmp_path / "orbax").rglob("*") if path.is_file())
        bits = [(path, at) for path in files for at in range(path.stat().st_size)]
        for path, at in draw.sample(bits, 16):
            flip(path, at, bit := draw.randrange(8))
            for verify in (True, False):
                try:
                    same = everything(tmp_path, verify) == expected
                    found[verify, "same" if same else "changed"] += 1
                except UserError:
                    found[verify, "refused"] += 1
            flip(path, at, bit)
        assert found[True, "changed"] == 0 and found[True, "refused"] >= found[False, "changed"] > 8
        assert everything(tmp_path) == expected


class TestLostOptimizers:
    """A file of moments that is gone, where the record tells of moments."""

    @pytest.fixture(params=["run", "safetensors", "pt"])
    def without(self, tmp_path, request):
        run = of_run(tmp_path)
        if request.param == "run":
            (run / "best" / "optimizer.safetensors").unlink()
            return run
        convert(run, tmp_path / "ours", "--to", "torch", "--container", request.param)
        (tmp_path / f"ours/optimizer.{request.param}").unlink()
        return tmp_path / "ours"

    def test_a_conversion_ends(self, without, tmp_path, capsys):
        capsys.readouterr()
        error = fail(capsys, without, tmp_path / "x", "--to", "flax")
        says(error, "optimizer", "10 steps", "missing", "--no-optimizer")
        assert not (tmp_path / "x").exists()
        convert(without, tmp_path / "x", "--to", "flax", "--no-optimizer")
        assert "missing" not in capsys.readouterr().out

    def test_inspecting_says_so(self, without, capsys):
        capsys.readouterr()
        convert("inspect", without)
        says(capsys.readouterr().out, "note", "optimizer", "10 steps", "missing")

    def test_a_file_that_is_named_needs_none(self, tmp_path):
        run = of_run(tmp_path)
        (run / "best" / "optimizer.safetensors").unlink()
        convert(
            run / "best" / MODEL, tmp_path / "x", "--to", "flax", "--config", run / "config.json"
        )
        assert (tmp_path / "x").is_dir()


class TestOlderCheckpoints:
    @pytest.mark.parametrize("twin", ["torch", "flax"])
    def test_files_are_compared_as_a_whole(self, tmp_path, twin):
        step = of_run(tmp_path, twin) / "checkpoints/step_00000020"
        expected = everything(step)
        forget_tensors(step)
        assert everything(step) == expected
        path = max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        flip(path, path.stat().st_size // 2)
        with pytest.raises(UserError) as caught:
            load_weights_of(step)
        says(caught.value, f"{path} is damaged", "take another checkpoint", "--no-verify")

    def test_one_without_any_hash_opens(self, tmp_path):
        step = of_run(tmp_path) / "checkpoints/step_00000020"
        (step / "tensors.json").unlink()
        assert open_content(step).record is None
        assert_same_arrays(load_weights_of(step)[1], initial_weights(CONFIG, 20))

    @pytest.mark.parametrize("files", [[], {"a": 3}, {"model.safetensors": {}}, "x"])
    def test_a_record_of_files_that_says_nothing(self, tmp_path, files):
        step = of_run(tmp_path) / "checkpoints/step_00000020"
        (step / "tensors.json").unlink()
        (step / "progress.json").write_text(json.dumps({"files": files}))
        with pytest.raises(UserError, match="progress.json is damaged.*--no-verify"):
            load_weights_of(step)
        assert load_weights_of(step, verify=False)[0] == CONFIG


class TestConvertedFolders:
    WAYS = (
        ("torch", "safetensors"),
        ("torch", "pt"),
        ("flax", "orbax"),
        ("flax", "safetensors"),
    )

    @pytest.mark.parametrize(("to", "container"), WAYS)
    def test_every_tensor_of_ours_is_compared(self, tmp_path, to, container):
        folder = converted(tmp_path, "--container", container, to=to)
        content = read_import(SourceRequest(folder)).content
        assert content.count == 10 and content.layout.has_moments(content.tensors)
        assert content.record is not None and set(content.tensors) == set(content.record.hashes)
        content.tensors.read_all()

    @pytest.mark.parametrize("more", [["--shard-size", "1000"], ["--dtype", "bfloat16"]])
    def test_shards_and_other_number_formats(self, tmp_path, more):
        folder = converted(tmp_path, *more)
        record = open_content(folder).record
        assert record is not None
        shards = sorted(folder.glob("model*.safetensors"))
        for path in [folder, *folder.glob("*.index.json"), *shards]:
            tensors = open_content(path).tensors
            assert set(tensors) <= set(record.hashes)
            tensors.read_all()
        for path in shards:
            name = next(iter(open_safetensors(path)))
            flip_in_tensor(path, name)
            with pytest.raises(UserError, match=f"{path} does not hold what was converted"):
                open_content(folder).tensors.read(name)
            flip_in_tensor(path, name)

    @pytest.mark.parametrize("container", ["safetensors", "pt"])
    def test_weights_that_were_trained_further(self, tmp_path, capsys, container):
        torch = pytest.importorskip("torch")
        folder = converted(tmp_path, "--container", container, "--no-optimizer")
        tuned = initial_weights(CONFIG, 99)
        if container == "pt":
            held = {name: torch.from_numpy(array) for name, array in tuned.items()}
            torch.save(held, folder / "model.pt")
        else:
            write_safetensors(folder / MODEL, Held(tuned))
        before = snapshot(folder)
        capsys.readouterr()
        error = fail(capsys, folder, tmp_path / "x", "--to", "flax")
        assert error.count("does not hold what was converted") == 1 and len(error) < 1500
        says(error, "conversion.json", "convert again", "on purpose", "--no-verify")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["ours", "run"]
        convert(folder, tmp_path / "x", "--to", "flax", "--no-verify")
        assert_same_arrays(load_weights_of(tmp_path / "x")[1], tuned)
        assert snapshot(folder) == before
        (folder / "conversion.json").unlink()
        assert_same_arrays(load_weights_of(folder)[1], tuned)

    @pytest.mark.parametrize("older", [False, True])
    def test_changed_files_beside_them_are_noted(self, tmp_path, capsys, older):
        """Of older conversions what was carried byte for byte is known."""
        folder = converted(tmp_path)
        convert(folder, tmp_path / "same", "--to", "flax")
        assert "is not as it was" not in capsys.readouterr().out
        if older:
            ledger = json.loads((folder / "conversion.json").read_text())
            assert {"config.json", "vocabulary/source.json"} <= ledger.pop("written").keys()
            (folder / "conversion.json").write_text(json.dumps(ledger))
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace('"num_heads": 2', '"num_heads": 3'))
        letters = (folder / "vocabulary/source.json").read_text()
        (folder / "vocabulary/source.json").write_text(letters.replace('"a"', '"z"'))
        convert(folder, tmp_path / "flax", "--to", "flax")
        said = capsys.readouterr().out
        convert("inspect", folder)
        for text in (said, capsys.readouterr().out, "\n".join(open_model(folder).notes)):
            says(text, "vocabulary/source.json", folder / "conversion.json")
            assert older != any("config.json, vocabulary/" in line for line in text.splitlines())
        convert(folder, tmp_path / "anyway", "--to", "flax", "--no-verify")
        assert "as it was" not in capsys.readouterr().out

    def test_what_lies_beside_them_is_not_claimed(self, tmp_path):
        folder = converted(tmp_path)
        write_safetensors(folder / "mine.safetensors", Held(initial_weights(CONFIG, 99)))
        weights = open_content(folder / "mine.safetensors").tensors.read_all()
        assert_same_arrays(weights, initial_weights(CONFIG, 99))
        shutil.copytree(folder, tmp_path / "moved")
        assert load_weights_of(tmp_path / "moved")[0] == CONFIG

    def test_moments_in_a_file_of_torch(self, tmp_path):
        torch = pytest.importorskip("torch")
        folder = converted(tmp_path, "--container", "pt")
        state = torch.load(folder / "optimizer.pt", weights_only=True)
        state["state"][0]["exp_avg"][0, 0] += 1
        torch.save(state, folder / "optimizer.pt")
        content = read_import(SourceRequest(folder)).content
        with pytest.raises(UserError, match="optimizer.pt does not hold what was converted: 'exp_"):
            content.tensors.read_all()

    @pytest.mark.parametrize("text", ["{", "[]", "null", "3"])
    @pytest.mark.parametrize("name", ["conversion.json", "tensors.json"])
    def test_a_record_that_cannot_be_read(self, tmp_path, name, text):
        folder = converted(tmp_path)
        (folder / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} is damaged.*--no-verify"):
            load_weights_of(folder)
        assert load_weights_of(folder, verify=False)[0] == CONFIG

    @pytest.mark.parametrize("tensors", [None, [], {"a": 3}, {"a": None}])
    def test_a_record_of_wrong_types(self, tmp_path, tensors):
        folder = converted(tmp_path)
        path = folder / "conversion.json"
        content = json.loads(path.read_text())
        if isinstance(tensors, dict):
            path.write_text(json.dumps(content | {"targets": tensors}))
            with pytest.raises(UserError, match="conversion.json is damaged"):
                load_weights_of(folder)
        path.unlink()
        (folder / "tensors.json").write_text(json.dumps({"format_version": 1, "tensors": tensors}))
        with pytest.raises(UserError, match=r"tensors.json is damaged"):
            load_weights_of(folder)

    def test_a_file_of_that_name_of_another_program(self, tmp_path):
        folder = converted(tmp_path)
        (folder / "conversion.json").write_text('{"tool": "theirs", "targets": {"a": 1}}')
        assert open_content(folder).record is None


class TestReaders:
    @pytest.fixture
    def folder(self, tmp_path):
        """A run and a converted folder, in both of which a bit is another."""
        folder = converted(tmp_path)
        flip_in_tensor(folder / MODEL, NAME)
        flip_in_tensor(tmp_path / "run/best" / MODEL, NAME)
        return tmp_path

    @pytest.mark.parametrize("name", ["run", "ours"])
    def test_all_say_so_and_can_be_told_not_to(self, folder, name, capsys):
        path = folder / name
        request = ConversionRequest(path, folder / "x", to="flax", container="safetensors")
        readers = {
            "convert": lambda **more: run_conversion(dataclasses.replace(request, **more)),
            "load_weights_of": lambda **more: load_weights_of(path, **more),
            "open_weights_of": lambda **more: open_weights_of(path, **more)[1].read_all(),
        }
        for backend in ("torch", "jax"):
            readers[backend] = lambda backend=backend, **more: twinformer.load(
                path, backend=backend, **more
            )
        for reader, read in readers.items():
            with pytest.raises(UserError) as caught:
                read()
            says(caught.value, repr(NAME), "--no-verify")
            assert reader != "convert" or not (folder / "x").exists()
            assert read(verify=False) is not None
        assert inspect(SourceRequest(path)).config == CONFIG

    def test_parity(self, folder, float64):
        options = {"precisions": (), "gradients": False, "explain": False, "longest": 4}
        paths = str(folder / "run"), str(folder / "ours")
        with pytest.raises(UserError) as caught:
            twinformer.compare(*paths, **options)
        says(caught.value, repr(NAME), "is damaged", "--no-verify")
        assert twinformer.compare(*paths, **options, verify=False).same
        both = [f"{path} --no-verify" for path in paths]
        assert twinformer.compare(*both, **options).same
        with pytest.raises(UserError, match="does not hold what was converted"):
            twinformer.compare(both[0], paths[1], **options)

    def test_a_dry_run_reads_nothing(self, folder, capsys):
        convert(folder / "run", folder / "x", "--to", "flax", "--dry-run")
        assert not (folder / "x").exists()

    def test_a_conversion_hashes_its_source_once(self, tmp_path, monkeypatch):
        tensors = open_content(of_run(tmp_path) / "best").tensors
        expected = read_import(SourceRequest(tmp_path / "run")).content.record
        monkeypatch.setattr(Fingerprint, "add", lambda *_: pytest.fail("hashed again"))
        found = Hashed(tensors)
        for name in tensors:
            assert np.isfinite(found.read(name)).all()
            assert expected and found.found[name].sha256 == expected.hashes[name]
