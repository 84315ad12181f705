"""python -m convert on foreign folders: there and back, inspect, and every tensor accounted for."""

import dataclasses
import json
import warnings

import ml_dtypes
import numpy as np
import pytest
from convert_cases import assert_same_arrays, convert, fail, snapshot
from marian_folders import ALIAS, CONFIG, SHARED, marian_weights, write_marian
from messages import says

from convert.__main__ import main
from convert.conversion.conversion import in_bytes
from convert.core.tensors import Held
from convert.formats.safetensors import open_safetensors, write_safetensors
from transformer_spec import TransformerConfig, initial_weights, trained_names


@pytest.fixture
def marian(tmp_path):
    return write_marian(tmp_path / "marian", marian_weights())


def weights_in(folder):
    return open_safetensors(folder / "model.safetensors").read_all()


def ledger_in(folder):
    return json.loads((folder / "conversion.json").read_text())


class TestThereAndBack:
    @pytest.mark.parametrize("aliases", [(), (ALIAS, "model.encoder.embed_tokens.weight")])
    @pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
    def test_every_byte_under_its_own_name(self, tmp_path, dtype, aliases):
        arrays = marian_weights(dtype, aliases=aliases)
        source = write_marian(tmp_path / "marian", arrays)
        before = snapshot(source)
        convert(source, tmp_path / "flax", "--to", "flax", "--container", "safetensors")
        convert(tmp_path / "flax", tmp_path / "torch", "--to", "torch")
        convert(tmp_path / "torch", tmp_path / "back", "--to", "marian")
        assert_same_arrays(weights_in(tmp_path / "back"), arrays)
        ours, theirs = (json.loads((tmp_path / n / "config.json").read_text())
                        for n in ("marian", "back"))  # fmt: skip
        assert ours == theirs
        assert snapshot(source) == before

    def test_the_config_is_ours(self, marian, tmp_path):
        convert(marian, tmp_path / "torch", "--to", "torch")
        found = TransformerConfig.load(tmp_path / "torch" / "config.json")
        assert found == dataclasses.replace(CONFIG, bos_id=found.bos_id)

    def test_a_weight_file_beside_its_config(self, marian, tmp_path):
        convert(marian / "model.safetensors", tmp_path / "a", "--to", "torch")
        convert(marian, tmp_path / "b", "--to", "torch", "--from", "marian")
        assert_same_arrays(weights_in(tmp_path / "a"), weights_in(tmp_path / "b"))

    def test_a_config_elsewhere(self, marian, tmp_path):
        (marian / "config.json").rename(tmp_path / "marian.json")
        convert(marian, tmp_path / "a", "--to", "torch", "--config", tmp_path / "marian.json")
        assert (tmp_path / "a" / "config.json").exists()

    def test_moments_go_through_the_same_table(self, marian, tmp_path):
        convert(marian, tmp_path / "torch", "--to", "torch")
        weights = weights_in(tmp_path / "torch")
        names = trained_names(CONFIG)
        moments = {f"{kind}/{name}": weights[name] * factor for name in names
                   for kind, factor in (("exp_avg", 2), ("exp_avg_sq", 3))}  # fmt: skip
        write_safetensors(tmp_path / "torch" / "optimizer.safetensors", Held(moments),
                          {"count": "7"})  # fmt: skip
        convert(tmp_path / "torch", tmp_path / "back", "--to", "marian")
        convert(tmp_path / "back", tmp_path / "again", "--to", "torch")
        again = open_safetensors(tmp_path / "again" / "optimizer.safetensors")
        assert_same_arrays(again.read_all(), moments)
        assert again.metadata == {"count": "7"}


class TestChoices:
    def test_number_format(self, marian, tmp_path, capsys):
        capsys.readouterr()
        convert(marian, tmp_path / "half", "--to", "torch", "--dtype", "bfloat16")
        half = sum(array.nbytes for array in weights_in(tmp_path / "half").values())
        says(capsys.readouterr().out, f"which become {in_bytes(half)}")
        convert(marian, tmp_path / "full", "--to", "torch")
        full = weights_in(tmp_path / "full")
        expected = {name: array.astype(ml_dtypes.bfloat16) for name, array in full.items()}
        assert_same_arrays(weights_in(tmp_path / "half"), expected)
        entries = ledger_in(tmp_path / "half")["targets"].values()
        assert all(entry["what"].endswith("rounded to bfloat16") for entry in entries)
        convert(tmp_path / "half", tmp_path / "wide", "--to", "flax", "--dtype", "float32")
        said = {entry["what"] for entry in ledger_in(tmp_path / "wide")["targets"].values()}
        assert said == {"widened to float32", "transposed then widened to float32"}
        assert "which become" in capsys.readouterr().out
        convert(marian, tmp_path / "same", "--to", "torch", "--dtype", "float32")
        assert "which become" not in capsys.readouterr().out
        assert "widened" not in json.dumps(ledger_in(tmp_path / "full"))

    def test_numbers_too_large_for_it(self, tmp_path, capsys):
        arrays = marian_weights()
        arrays["model.encoder.layers.0.fc1.bias"][:2] = 1e5, -1e6
        source = write_marian(tmp_path / "marian", arrays)
        convert(source, tmp_path / "half", "--to", "torch", "--dtype", "float16")
        said = capsys.readouterr().out
        name = "encoder.enc_layers.0.ffn.fc1.bias"
        says(said, "warning", 2, name, "too large", "float16")

    def test_shards(self, marian, tmp_path):
        convert(marian, tmp_path / "cut", "--to", "torch", "--shard-size", "1kB")
        convert(marian, tmp_path / "whole", "--to", "torch")
        index = tmp_path / "cut" / "model.safetensors.index.json"
        assert_same_arrays(open_safetensors(index).read_all(), weights_in(tmp_path / "whole"))
        assert len(list((tmp_path / "cut").glob("model-*.safetensors"))) > 2
        convert(tmp_path / "cut", tmp_path / "back", "--to", "marian")
        assert_same_arrays(weights_in(tmp_path / "back"), weights_in(marian))

    @pytest.mark.parametrize("size", ["0", "5 apples", "-1GB"])
    def test_sizes_that_are_none(self, marian, tmp_path, size, capsys):
        error = fail(capsys, marian, tmp_path / "x", "--to", "torch", f"--shard-size={size}")
        says(error, "is no size such as 5GB", "kB, MB, GB and TB")

    def test_shards_of_other_containers(self, marian, tmp_path, capsys):
        error = fail(capsys, marian, tmp_path / "x", "--to", "flax", "--shard-size", "1GB")
        assert "--shard-size cuts safetensors" in error

    def test_leaving_out(self, tmp_path, capsys):
        arrays = marian_weights() | {"extra.weight": np.ones(3, np.float32)}
        source = write_marian(tmp_path / "marian", arrays)
        error = fail(capsys, source, tmp_path / "x", "--to", "torch")
        assert "extra 'extra.weight': float32 [3]" in error
        convert(source, tmp_path / "x", "--to", "torch", "--drop", "extra.weight")
        entry = ledger_in(tmp_path / "x")["sources"]["extra.weight"]
        assert (entry["what"], entry["reason"]) == ("dropped", "left out by --drop")
        capsys.readouterr()
        error = fail(capsys, source, tmp_path / "y", "--to", "torch", "--drop", "a", "--drop", "b")
        assert "'a' is not in" in error and "'b' is not in" in error


class TestAccounts:
    def test_ties_whose_bytes_differ(self, tmp_path, capsys):
        arrays = marian_weights(aliases=(ALIAS,))
        arrays[ALIAS] = arrays[ALIAS] + 1
        source = write_marian(tmp_path / "marian", arrays)
        error = fail(capsys, source, tmp_path / "x", "--to", "torch")
        says(error, f"{SHARED}, {ALIAS}", f"(tied) differ; {ALIAS} from {SHARED}")
        says(error, "--drop NAME leaves one out that is not used")
        assert not (tmp_path / "x").exists()

    def test_numbers_that_are_none(self, tmp_path, capsys):
        arrays = marian_weights()
        arrays[SHARED][3, :2] = np.nan, np.inf
        source = write_marian(tmp_path / "marian", arrays)
        convert(source, tmp_path / "x", "--to", "torch")
        said = capsys.readouterr().out
        says(said, "warning", "2 of 66", SHARED, "NaN or infinite")

    def test_both_sides_are_in_the_ledger(self, marian, tmp_path):
        convert(marian, tmp_path / "x", "--to", "flax", "--container", "safetensors")
        ledger = ledger_in(tmp_path / "x")
        assert ledger["sources"].keys() == weights_in(marian).keys()
        assert ledger["targets"].keys() == weights_in(tmp_path / "x").keys()
        name = "model.encoder.layers.0.fc1.weight"
        assert ledger["sources"][name]["what"] == "transposed"
        assert ledger["from"] == {"names": "marian", "container": "safetensors"}

    def test_flags_against_its_own_settings(self, marian, tmp_path, capsys):
        error = fail(capsys, marian, tmp_path / "x", "--to", "torch", "--num-heads", "3")
        says(error, "num_heads", "given as 3", 2)


class TestInspect:
    def inspect(self, capsys, *arguments):
        assert main(["inspect", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    def test_text(self, marian, capsys):
        said = self.inspect(capsys, marian)
        assert "family     marian" in said
        assert "optimizer  none: an optimizer starts fresh" in said
        assert "num_encoder_layers=2" in said
        assert any(line.split() == [SHARED, "float32", "11x6"] for line in said.splitlines())

    def test_json(self, tmp_path, capsys):
        source = write_marian(tmp_path / "marian", marian_weights(np.float16, aliases=(ALIAS,)))
        report = json.loads(self.inspect(capsys, source, "--json"))
        count = len(report["tensors"])
        size = sum(entry["bytes"] for entry in report["tensors"].values())
        dtypes = {"float16": {"tensors": count, "bytes": size}}
        assert report["weights"] == {"tensors": count, "bytes": size, "dtypes": dtypes}
        assert report["config"]["hidden_dim"] == 6 and report["fault"] is None
        assert [sorted(names) for names in report["ties"]] == [sorted([SHARED, ALIAS])]

    def test_no_tensor_is_read(self, marian, capsys, monkeypatch):
        def refuse(self, name):
            raise AssertionError(f"{name} was read")

        kind = type(open_safetensors(marian / "model.safetensors"))
        monkeypatch.setattr(kind, "read", refuse)
        assert "marian" in self.inspect(capsys, marian)

    def test_of_unknown_weights(self, tmp_path, capsys):
        write_safetensors(tmp_path / "m.safetensors", Held({"a.b": np.zeros((2, 3), np.float32)}))
        said = self.inspect(capsys, tmp_path / "m.safetensors")
        assert "family     not known" in said and "a.b  float32   2x3" in said
        assert "has names of no known family" in said

    def test_what_is_no_checkpoint(self, tmp_path, capsys):
        assert main(["inspect", str(tmp_path / "absent")]) == 2
        assert "does not exist" in capsys.readouterr().err


class TestTorchNN:
    """A module's settings are not in its file; those that were written with it are read."""

    @pytest.mark.parametrize(
        "changed",
        [
            {},
            {"norm_position": "pre", "final_norm": True, "activation": "gelu_tanh",
             "encoder_positions": "learned", "decoder_positions": "learned",
             "tied_embeddings": "all"},
            {"tied_embeddings": "target_output", "embedding_norm": True, "attention_dropout": 0.2},
        ],
        ids=["usual", "pre, learned, tied", "norm of embeddings"],
    )  # fmt: skip
    def test_what_was_written_comes_back(self, changed, tmp_path, capsys):
        config = TransformerConfig(11, 11, 8, 12, 2, 2, 1, 9, **changed)
        config.save(tmp_path / "config.json")
        arrays = initial_weights(config, 3)
        write_safetensors(tmp_path / "model.safetensors", Held(arrays))
        convert(tmp_path / "model.safetensors", tmp_path / "nn", "--to", "torch-nn")
        convert(tmp_path / "nn", tmp_path / "back", "--to", "torch")
        assert_same_arrays(weights_in(tmp_path / "back"), arrays)
        assert TransformerConfig.load(tmp_path / "back" / "config.json") == config
        settings = tmp_path / "nn" / "config.json"
        (tmp_path / "alone").mkdir()
        (tmp_path / "nn" / "model.pt").rename(tmp_path / "alone" / "model.pt")
        convert(tmp_path / "alone/model.pt", tmp_path / "b2", "--to", "torch", "--config", settings)
        assert TransformerConfig.load(tmp_path / "b2" / "config.json") == config
        assert "not read" not in capsys.readouterr().out


class TestFiles:
    """Folders as trainers leave them, with weights in more than one file."""

    def test_safetensors_are_read_first_and_it_is_said(self, marian, tmp_path, capsys):
        import torch

        other = {name: torch.from_numpy(x) + 1 for name, x in marian_weights().items()}
        torch.save(other, marian / "pytorch_model.bin")
        convert(marian, tmp_path / "a", "--to", "marian")
        says(capsys.readouterr().out, "model.safetensors is read", "pytorch_model.bin")
        assert_same_arrays(weights_in(tmp_path / "a"), marian_weights())
        convert(marian / "pytorch_model.bin", tmp_path / "b", "--to", "marian")
        found = weights_in(tmp_path / "b")
        assert (found[SHARED] == marian_weights()[SHARED] + 1).all()

    def test_all_files_are_compared_where_that_is_asked(self, marian, tmp_path, capsys):
        import torch

        weights = {name: torch.from_numpy(x) for name, x in marian_weights().items()}
        torch.save(weights, marian / "pytorch_model.bin")
        convert(marian, tmp_path / "flax", "--to", "marian-flax")
        msgpack = (tmp_path / "flax" / "flax_model.msgpack").read_bytes()
        (marian / "flax_model.msgpack").write_bytes(msgpack)
        capsys.readouterr()
        convert(marian, tmp_path / "a", "--to", "marian", "--compare-files")
        out = capsys.readouterr().out
        says(out, "pytorch_model.bin holds the same weights, byte by byte")
        says(out, "flax_model.msgpack holds the same weights, byte by byte")
        torch.save({**weights, SHARED: weights[SHARED] + 1}, marian / "pytorch_model.bin")
        error = fail(capsys, marian, tmp_path / "b", "--to", "marian", "--compare-files")
        says(error, marian / "model.safetensors", "do not hold the same", SHARED, "other numbers")
        says(error, "name the file that is to be read")
        assert not (tmp_path / "b").exists()

    @pytest.mark.parametrize("given", ["", "__0_0.distcp"])
    def test_parts_of_a_distributed_checkpoint_are_named(self, tmp_path, capsys, given):
        import torch
        from torch.distributed import checkpoint as distributed

        place = tmp_path / "pytorch_model_fsdp_0"
        state = {name: torch.from_numpy(x) for name, x in marian_weights().items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            distributed.save(state, checkpoint_id=place, no_dist=True)
        error = fail(capsys, place / given, tmp_path / "out", "--to", "torch")
        says(error, f"{place} is a checkpoint of torch.distributed.checkpoint", "dcp_to_torch")

    def test_a_file_s_own_config_where_another_is_given(self, tmp_path):
        CONFIG.save(tmp_path / "config.json")
        write_safetensors(tmp_path / "model.safetensors", Held(initial_weights(CONFIG, 1)))
        other = dataclasses.replace(CONFIG, dropout=0.3)
        (tmp_path / "given").mkdir()
        other.save(tmp_path / "given/config.json")
        convert(tmp_path / "model.safetensors", tmp_path / "a", "--to", "torch")
        assert TransformerConfig.load(tmp_path / "a/config.json") == CONFIG
        convert(tmp_path / "model.safetensors", tmp_path / "b", "--to", "torch",
                "--config", tmp_path / "given/config.json")  # fmt: skip
        assert TransformerConfig.load(tmp_path / "b/config.json") == other
