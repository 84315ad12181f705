"""safetensors: lazy headers, the same arrays back, damage named, nothing half-written."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from array_cases import assert_holds, various

from convert.formats.safetensors import open_safetensors, write_safetensors
from convert.tensors import Held, Joined
from transformer_spec import UserError


class TestSafetensors:
    def test_round_trip(self, tmp_path):
        write_safetensors(tmp_path / "m.safetensors", Held(various()), {"count": "7", "a": "b"})
        tensors = open_safetensors(tmp_path / "m.safetensors")
        assert_holds(tensors, various())
        assert tensors.metadata == {"count": "7", "a": "b"}
        assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
    def test_same_bytes_as_the_library(self, tmp_path, metadata):
        arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in various().items()}
        for i, dtype in enumerate((bool, "u1", "i1", "i2", "u2", "i4", "u4", "u8")):
            arrays[f"z{i}"] = np.arange(5).astype(dtype)
        arrays["f8"] = np.ones(3, ml_dtypes.float8_e4m3fn)
        arrays["f9"] = np.ones(3, ml_dtypes.float8_e5m2)
        write_safetensors(tmp_path / "ours", Held(arrays), metadata)
        safetensors.numpy.save_file(arrays, tmp_path / "theirs", metadata)
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()

    def test_order_of_arrays_does_not_change_the_file(self, tmp_path):
        write_safetensors(tmp_path / "one", Held(various()))
        write_safetensors(tmp_path / "two", Held(dict(reversed(various().items()))))
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    @pytest.mark.parametrize("size", [0, 5, 100, -1])
    def test_truncated(self, tmp_path, size):
        path = tmp_path / "m.safetensors"
        write_safetensors(path, Held(various()))
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UserError, match=r"m\.safetensors is truncated"):
            open_safetensors(path)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"x\.safetensors does not exist"):
            open_safetensors(tmp_path / "x.safetensors")

    def test_unsupported_type_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"cannot hold 'x': complex128 \[2\]"):
            write_safetensors(tmp_path / "m", Held({"x": np.zeros(2, complex)}))

    def test_failure_while_writing_leaves_nothing(self, tmp_path):
        class Failing(Held):
            def read(self, name):
                raise OSError(28, "No space left on device")

        with pytest.raises(UserError, match="cannot write .*m: No space left on device"):
            write_safetensors(tmp_path / "m", Failing(various()))
        assert list(tmp_path.iterdir()) == []


class TestShards:
    def write(self, folder, weight_map=None):
        arrays = various()
        names = list(arrays)
        shards = {"m-1.safetensors": names[:3], "m-2.safetensors": names[3:]}
        for shard, part in shards.items():
            write_safetensors(folder / shard, Held({name: arrays[name] for name in part}))
        full = {name: shard for shard, part in shards.items() for name in part}
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": full if weight_map is None else weight_map}))
        return index, full

    def test_shards_read_as_one(self, tmp_path):
        index, _ = self.write(tmp_path)
        assert_holds(open_safetensors(index), various())

    def test_all_disagreements_at_once(self, tmp_path):
        _, full = self.write(tmp_path)
        del full["ü"]
        index, _ = self.write(tmp_path, full | {"more": "m-1.safetensors"})
        with pytest.raises(UserError) as caught:
            open_safetensors(index)
        assert "'more' is not in m-1" in str(caught.value)
        assert "'ü' of m-2.safetensors is not in the index" in str(caught.value)

    @pytest.mark.parametrize("shard", ["../m.safetensors", "/etc/passwd", "a/b", ""])
    def test_a_shard_is_a_plain_file_name(self, tmp_path, shard):
        index, _ = self.write(tmp_path, {"x": shard})
        with pytest.raises(UserError, match="no plain file name"):
            open_safetensors(index)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
    def test_broken_index(self, tmp_path, text):
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(text)
        with pytest.raises(UserError, match="no readable safetensors index"):
            open_safetensors(path)

    def test_missing_shard(self, tmp_path):
        index, _ = self.write(tmp_path)
        (tmp_path / "m-2.safetensors").unlink()
        with pytest.raises(UserError, match=r"m-2\.safetensors does not exist"):
            open_safetensors(index)


def test_a_name_in_two_files_is_an_error():
    with pytest.raises(UserError, match="'x' is in one and in two"):
        Joined("both", [Held({"x": np.zeros(1)}, "one"), Held({"x": np.zeros(1)}, "two")])
