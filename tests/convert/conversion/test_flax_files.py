"""Files of Flax modules as people have them: shards, safetensors, Orbax, the state of a loop."""

from __future__ import annotations

import json
import shutil

import ml_dtypes
import numpy as np
import pytest

flax = pytest.importorskip("flax")
pytest.importorskip("transformers")

import optax  # noqa: E402
from convert_cases import assert_same_arrays, convert, fail  # noqa: E402
from flax.serialization import msgpack_serialize, to_bytes  # noqa: E402
from flax.training.train_state import TrainState  # noqa: E402
from flax.traverse_util import flatten_dict, unflatten_dict  # noqa: E402
from flax_cases import CLASSES, flax_case  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from convert.__main__ import main  # noqa: E402
from convert.checkpoints import read_checkpoint  # noqa: E402
from convert.checkpoints.reading import open_content  # noqa: E402
from convert.formats.safetensors import open_safetensors  # noqa: E402

INDEX = "flax_model.msgpack.index.json"


@pytest.fixture(scope="module", params=CLASSES)
def case(request, tmp_path_factory):
    """(family, settings, parameters in a nested dict, the folder of a plain conversion)."""
    place = tmp_path_factory.mktemp(request.param)
    _, source = flax_case(request.param, place / "theirs")
    arrays = {n: a.astype(np.float32) for n, a in source.tensors.read_all().items()}
    nested = unflatten_dict(arrays, sep=".")
    folder = a_folder(place / "plain", source.settings, "flax_model.msgpack", to_bytes(nested))
    convert(folder, place / "torch", "--to", "torch")
    return request.param, source.settings, nested, place / "torch"


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    place = tmp_path_factory.mktemp("bart")
    _, source = flax_case("bart", place / "theirs")
    arrays = {n: a.astype(np.float32) for n, a in source.tensors.read_all().items()}
    return source.settings, unflatten_dict(arrays, sep="."), place


def a_folder(folder, settings, name, content):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / name).write_bytes(content)
    return folder


def sharded(folder, settings, params, count: int = 3):
    """As ``flax_shard_checkpoint`` and ``save_pretrained`` of transformers 4 write it."""
    flat = flatten_dict(params, sep="/")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    weight_map = {}
    for number in range(count):
        name = f"flax_model-{number + 1:05}-of-{count:05}.msgpack"
        part = dict(list(flat.items())[number::count])
        (folder / name).write_bytes(to_bytes(unflatten_dict(part, sep="/")))
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))
    return folder


def assert_as_plain(case, source, folder, *flags) -> None:
    """What is converted is what the plain file gives."""
    convert(source, folder, "--to", "torch", *flags)
    found, expected = (open_content(f).tensors.read_all() for f in (folder, case[3]))
    assert_same_arrays(dict(sorted(found.items())), dict(sorted(expected.items())))


class TestShards:
    def test_with_the_library_s_own_index(self, case, tmp_path):
        source = sharded(tmp_path / "s", case[1], case[2])
        assert_as_plain(case, source, tmp_path / "torch")
        assert_as_plain(case, source / INDEX, tmp_path / "again")

    def test_empty_and_unlisted_ones_are_named(self, case, tmp_path, capsys):
        source = sharded(tmp_path / "s", case[1], case[2])
        empty = "flax_model-00004-of-00004.msgpack"
        (source / empty).write_bytes(to_bytes({}))
        assert_as_plain(case, source, tmp_path / "torch")
        note = f"not read, as {INDEX} lists nothing of it: {empty}"
        assert note in capsys.readouterr().out
        assert main(["inspect", str(source)]) == 0
        assert f"note       {note}" in capsys.readouterr().out

    def test_a_weight_that_no_shard_has_is_missed(self, bart, tmp_path, capsys):
        settings, params, _ = bart
        source = sharded(tmp_path / "s", settings, params)
        index = json.loads((source / INDEX).read_text())
        gone = "flax_model-00002-of-00003.msgpack"
        index["weight_map"] = {n: s for n, s in index["weight_map"].items() if s != gone}
        (source / INDEX).write_text(json.dumps(index))
        said = fail(capsys, source, tmp_path / "x", "--to", "torch")
        assert "missing" in said and "are missing" in said

    @pytest.mark.parametrize("stem", ["model.safetensors", "pytorch_model.bin"])
    def test_other_containers(self, stem, tmp_path, capsys):
        """A shard beside the listed ones, in the containers of PyTorch."""
        torch = pytest.importorskip("torch")
        from transformers import BartConfig, BartForConditionalGeneration

        counts = {"layers": 1, "attention_heads": 2, "ffn_dim": 8}
        sizes = {f"{h}_{what}": n for h in ("encoder", "decoder") for what, n in counts.items()}
        config = BartConfig(vocab_size=29, d_model=12, max_position_embeddings=9, **sizes)
        model = BartForConditionalGeneration(config)
        model.save_pretrained(tmp_path / "s", max_shard_size="4kB")
        index = tmp_path / "s" / "model.safetensors.index.json"
        if stem != "model.safetensors":
            self.as_pickles(tmp_path / "s", index, torch)
        shards = sorted((tmp_path / "s").glob("*-of-*"))
        last = shards[0].name.replace("00001-of", "00099-of")
        shutil.copyfile(shards[0], tmp_path / "s" / last)
        convert(tmp_path / "s", tmp_path / "torch", "--to", "torch")
        assert f"{stem}.index.json lists nothing of it: {last}" in capsys.readouterr().out
        model.save_pretrained(tmp_path / "whole")
        convert(tmp_path / "whole", tmp_path / "t2", "--to", "torch")
        found, expected = (open_content(tmp_path / f).tensors.read_all() for f in ("torch", "t2"))
        assert_same_arrays(found, expected)

    def as_pickles(self, folder, index, torch) -> None:
        content = json.loads(index.read_text())
        for shard in sorted(folder.glob("*.safetensors")):
            arrays = open_safetensors(shard).read_all()
            name = shard.name.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
            torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, folder / name)
            listed = content["weight_map"].items()
            content["weight_map"] = {n: name if s == shard.name else s for n, s in listed}
            shard.unlink()
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(content))
        index.unlink()


class TestSafetensors:
    @pytest.mark.parametrize("separator", [".", "/"])
    def test_flax_names(self, case, separator, tmp_path, capsys):
        folder = a_folder(tmp_path / "f", case[1], "model.safetensors", b"")
        arrays = flatten_dict(case[2], sep=separator)
        save_file(arrays, folder / "model.safetensors", metadata={"format": "flax"})
        assert_as_plain(case, folder, tmp_path / "torch")
        assert_as_plain(case, folder, tmp_path / "said", "--from", f"{case[0]}-flax")
        assert main(["inspect", str(folder)]) == 0
        assert f"family     {case[0]}-flax" in capsys.readouterr().out

    def test_there_and_back_byte_for_byte(self, case, tmp_path):
        """What is written as the library writes it, its metadata included, is read again."""
        theirs = tmp_path / "theirs.safetensors"
        save_file(flatten_dict(case[2], sep="."), theirs, metadata={"format": "flax"})
        flags = ("--to", f"{case[0]}-flax", "--container", "safetensors")
        convert(case[3], tmp_path / "flax", *flags)
        written = tmp_path / "flax" / "model.safetensors"
        assert written.read_bytes() == theirs.read_bytes()
        assert_as_plain(case, tmp_path / "flax", tmp_path / "torch")
        convert(tmp_path / "torch", tmp_path / "again", *flags)
        assert (tmp_path / "again" / "model.safetensors").read_bytes() == written.read_bytes()

    def test_in_bfloat16(self, bart, tmp_path):
        settings, params, _ = bart
        flat = flatten_dict(params, sep=".")
        half = {name: array.astype(ml_dtypes.bfloat16) for name, array in flat.items()}
        content = to_bytes(unflatten_dict(half, sep="."))
        source = a_folder(tmp_path / "h", settings, "flax_model.msgpack", content)
        convert(source, tmp_path / "torch", "--to", "torch")
        found = open_content(tmp_path / "torch").tensors
        expected = half["model.encoder.layers.0.fc1.kernel"].T
        name = "encoder.enc_layers.0.ffn.fc1.weight"
        np.testing.assert_array_equal(found.read(name), expected)


class TestStates:
    def test_moments_of_what_is_never_trained_are_dropped(self, bart, tmp_path):
        """Flax has the output bias among its parameters; it is a buffer of ours."""
        settings, params, _ = bart
        draw = np.random.default_rng(0)
        flat = flatten_dict(params, sep="/")
        names = {n: draw.normal(size=a.shape).astype(np.float32) for n, a in flat.items()}
        mu, nu = unflatten_dict(names, sep="/"), unflatten_dict(flat, sep="/")
        adam = {"count": np.int32(5), "mu": mu, "nu": nu}
        tree = {"step": 5, "params": params, "opt_state": {"0": adam, "1": {}, "2": None}}
        source = a_folder(tmp_path / "s", settings, "checkpoint_5", msgpack_serialize(tree))
        convert(source / "checkpoint_5", tmp_path / "torch", "--to", "torch")
        found = read_checkpoint(tmp_path / "torch")
        assert found.count == 5 and "decoder.finalFc.bias" not in found.first_moments
        name = "encoder.enc_layers.0.ffn.fc1.weight"
        kernel = "model/encoder/layers/0/fc1/kernel"
        np.testing.assert_array_equal(found.first_moments[name], names[kernel].T)
        np.testing.assert_array_equal(found.second_moments[name], flat[kernel].T)
        ledger = json.loads((tmp_path / "torch" / "conversion.json").read_text())["sources"]
        gone = {name for name, entry in ledger.items() if entry["what"] == "dropped"}
        assert {"step", "exp_avg/final_logits_bias", "exp_avg_sq/final_logits_bias"} <= gone
        # As a folder: the one file that Flax numbered is found, and the settings beside it.
        convert(source, tmp_path / "by-folder", "--to", "torch")
        both = [read_checkpoint(tmp_path / f).weights for f in ("torch", "by-folder")]
        assert_same_arrays(*both)

    @pytest.mark.sampled(3)
    @pytest.mark.parametrize("container", ["msgpack", "orbax"])
    def test_adafactor(self, container, case, tmp_path, capsys):
        """What T5 and BART were trained with in Flax."""
        state = TrainState.create(apply_fn=None, params=case[2], tx=optax.adafactor(1e-3))
        if container == "msgpack":
            source = a_folder(tmp_path / "s", case[1], "flax_model.msgpack", to_bytes(state))
        else:
            ocp = pytest.importorskip("orbax.checkpoint")
            source = a_folder(tmp_path / "s", case[1], "notes.txt", b"")
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(source / "orbax", state)
            assert_as_plain(case, source / "orbax", tmp_path / "by-itself")
        capsys.readouterr()
        assert_as_plain(case, source, tmp_path / "torch")
        said = capsys.readouterr().out
        assert said.count("the optimizer is left out, the weights are not") == 1
        assert "it keeps v_row, as Adafactor does" in said
        assert main(["inspect", str(source)]) == 0
        told = capsys.readouterr().out
        count = len(flatten_dict(case[2]))
        assert f"weights    {count} tensors" in told and "as Adafactor does" in told
        assert "optimizer  none: an optimizer starts fresh" in told
