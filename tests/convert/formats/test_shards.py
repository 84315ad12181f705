"""Checkpoints in several files, as the Hub has them: written whole or not at all, read as one."""

import json
import shutil

import numpy as np
import pytest
from array_cases import assert_holds, various
from messages import saying, says

from convert.core.tensors import Held, header_of
from convert.formats.safetensors import open_safetensors, write_safetensors, write_sharded
from convert.formats.shards import notes_of, plan_shards
from training_recipe.files import writing
from transformer_spec import UserError

INDEX = "model.safetensors.index.json"


def shard(number, count):
    return f"model-{number:05}-of-{count:05}.safetensors"


class TestWriting:
    def test_names_and_index_as_the_hub_has_them(self, tmp_path):
        arrays = {"b": np.ones(4, np.float32), "a": np.ones(2, np.float64), "c": np.ones(3, "i1")}
        paths = write_sharded(tmp_path, Held(arrays), {"format": "pt"}, 19)
        names = [shard(1, 2), shard(2, 2), INDEX]
        assert [path.name for path in paths] == names == sorted(p.name for p in tmp_path.iterdir())
        weight_map = {"a": shard(1, 2), "b": shard(2, 2), "c": shard(2, 2)}
        content = json.loads((tmp_path / INDEX).read_text())
        assert content == {"metadata": {"total_size": 35}, "weight_map": weight_map}
        assert_holds(open_safetensors(tmp_path / INDEX), arrays)
        assert open_safetensors(tmp_path / shard(1, 2)).metadata == {"format": "pt"}

    def test_transformers_reads_them(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        torch = pytest.importorskip("torch")
        settings = {"vocab_size": 11, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
        sizes = {"encoder_ffn_dim": 4, "decoder_ffn_dim": 4, "max_position_embeddings": 9}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        model = transformers.BartForConditionalGeneration(
            transformers.BartConfig(**settings, **sizes, **heads)
        )
        model.save_pretrained(tmp_path / "theirs")
        source = open_safetensors(tmp_path / "theirs" / "model.safetensors")
        write_sharded(tmp_path / "ours", source, source.metadata, 1000)
        shutil.copyfile(tmp_path / "theirs" / "config.json", tmp_path / "ours" / "config.json")
        loaded = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "ours")
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name])

    def test_one_shard_has_no_number_and_no_index(self, tmp_path):
        write_sharded(tmp_path / "new" / "folder", Held(various()))
        assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["model.safetensors"]
        assert_holds(open_safetensors(tmp_path / "new" / "folder" / "model.safetensors"), various())

    @pytest.mark.parametrize(
        ("sizes", "limit", "expected"),
        [
            ([3, 3, 3], 6, ["ab", "c"]),
            ([3, 3, 3], 5, ["a", "b", "c"]),
            ([9, 1, 1], 5, ["a", "bc"]),
            ([1, 9, 1], 5, ["a", "b", "c"]),
            ([1, 1, 9], 5, ["ab", "c"]),
            ([0, 9, 0, 0], 5, ["ab", "cd"]),
            ([5, 0, 5], 5, ["ab", "c"]),
            ([], 5, [""]),
        ],
    )
    def test_filled_in_order_of_names(self, sizes, limit, expected):
        arrays = {"abcd"[i]: np.zeros(size, np.int8) for i, size in enumerate(sizes)}
        headers = {name: header_of(array) for name, array in reversed(arrays.items())}
        assert ["".join(part) for part in plan_shards(headers, limit)] == expected

    @pytest.mark.parametrize("name", [shard(1, 6), INDEX])
    def test_nothing_is_overwritten(self, tmp_path, name):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=f"has {name} already"):
            write_sharded(tmp_path, Held(various()), shard_size=1)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("existing", [True, False])
    def test_failure_while_writing_leaves_nothing(self, tmp_path, existing):
        class Failing(Held):
            def read(self, name):
                if name == "ü":
                    raise OSError(28, "No space left on device")
                return super().read(name)

        folder = tmp_path if existing else tmp_path / "new"
        with pytest.raises(UserError, check=saying(folder, "No space left on device")):
            write_sharded(folder, Failing(various()), shard_size=1)
        assert list(tmp_path.iterdir()) == []

    def test_failure_while_moving_leaves_nothing(self, tmp_path, monkeypatch):
        (tmp_path / "mine").write_text("stays")
        monkeypatch.setattr(writing, "sync", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_sharded(tmp_path, Held(various()), shard_size=1)
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_a_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "f").write_text("mine")
        with pytest.raises(UserError, match="cannot write into"):
            write_sharded(tmp_path / "f", Held(various()))
        assert (tmp_path / "f").read_text() == "mine"


class TestReading:
    def write(self, folder, weight_map=None):
        arrays = various()
        names = list(arrays)
        shards = {"m-1.safetensors": names[:3], "m-2.safetensors": names[3:]}
        for file, part in shards.items():
            write_safetensors(folder / file, Held({name: arrays[name] for name in part}))
        full = {name: file for file, part in shards.items() for name in part}
        index = folder / INDEX
        index.write_text(json.dumps({"weight_map": full if weight_map is None else weight_map}))
        return index, full

    def test_shards_read_as_one(self, tmp_path):
        index, _ = self.write(tmp_path)
        assert_holds(open_safetensors(index), various())

    def test_a_shard_that_is_something_else_is_said_to_be_that(self, tmp_path):
        index, _ = self.write(tmp_path)
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 312087009\n"
        (tmp_path / "m-1.safetensors").write_bytes(pointer)
        (tmp_path / "m-2.safetensors").write_bytes(b"")
        with pytest.raises(UserError) as caught:
            open_safetensors(index)
        says(caught.value, "m-1.safetensors is a pointer of git-lfs, not the weights")
        says(caught.value, "m-2.safetensors is empty")

    def test_all_disagreements_at_once(self, tmp_path):
        _, full = self.write(tmp_path)
        del full["ü"]
        index, _ = self.write(tmp_path, full | {"more": "m-1.safetensors"})
        with pytest.raises(UserError) as caught:
            open_safetensors(index)
        assert "'more' is not in m-1" in str(caught.value)
        says(caught.value, "'ü'", "m-2.safetensors", "not in the index")

    @pytest.mark.parametrize(
        "name",
        [
            "../m.safetensors",
            "/etc/passwd",
            "a/b",
            "",
            ".",
            "..",
            "..\\m.safetensors",
            "C:m",
            "a\0b",
        ],
    )
    def test_a_shard_is_a_plain_file_name(self, tmp_path, name):
        index, _ = self.write(tmp_path, {"x": name})
        with pytest.raises(UserError, match="no plain file name"):
            open_safetensors(index)

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "[" * 90000, "\udcff"],
    )
    def test_broken_index(self, tmp_path, text):
        path = tmp_path / INDEX
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(UserError, match="no readable index of shards"):
            open_safetensors(path)

    def test_all_missing_shards_at_once(self, tmp_path):
        index, _ = self.write(tmp_path)
        for number in (1, 2):
            (tmp_path / f"m-{number}.safetensors").unlink()
        with pytest.raises(UserError) as caught:
            open_safetensors(index)
        assert "m-1.safetensors does not exist" in str(caught.value)
        assert "m-2.safetensors does not exist" in str(caught.value)

    def test_a_shard_that_the_index_leaves_out(self, tmp_path):
        """Whether it is there or not, it is named and not read; a weight of it is missed later."""
        write_sharded(tmp_path, Held(various()), shard_size=1)
        content = json.loads((tmp_path / INDEX).read_text())
        gone = content["weight_map"].pop("a.scale"), content["weight_map"].pop("c.d.e")
        (tmp_path / INDEX).write_text(json.dumps(content))
        (tmp_path / gone[1]).unlink()
        found = open_safetensors(tmp_path / INDEX)
        rest = {n: a for n, a in various().items() if n not in ("a.scale", "c.d.e")}
        assert_holds(found, rest)
        named = ", ".join(sorted(gone))
        assert notes_of(found) == [f"not read, as {INDEX} lists nothing of it: {named}"]

    def test_shards_of_another_time(self, tmp_path):
        write_sharded(tmp_path, Held(various()), shard_size=1)
        (tmp_path / shard(2, 9)).write_bytes(b"")
        (tmp_path / "other-00001-of-00002.safetensors").write_bytes(b"")
        found = open_safetensors(tmp_path / INDEX)
        assert_holds(found, various())
        assert notes_of(found) == [f"not read, as {INDEX} lists nothing of it: {shard(2, 9)}"]

    @pytest.mark.parametrize("first", [0, 1])
    def test_nothing_is_said_of_whole_ones(self, tmp_path, first):
        """Some programs number from 0."""
        weight_map = {}
        for number, (name, array) in enumerate(various().items()):
            file = shard(first + number, len(various()))
            write_safetensors(tmp_path / file, Held({name: array}))
            weight_map[name] = file
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        assert notes_of(open_safetensors(tmp_path / INDEX)) == []

    def test_an_index_of_nothing(self, tmp_path):
        (tmp_path / INDEX).write_text('{"weight_map": {}}')
        with pytest.raises(UserError, match="it lists no tensor"):
            open_safetensors(tmp_path / INDEX)

    def test_missing_index(self, tmp_path):
        with pytest.raises(UserError, match="no readable index"):
            open_safetensors(tmp_path / INDEX)

    def test_a_shard_that_is_an_index(self, tmp_path):
        index, _ = self.write(tmp_path, {"x": INDEX})
        with pytest.raises(UserError, match="no safetensors file"):
            open_safetensors(index)
