"""safetensors: lazy headers, the same arrays back, damage named, nothing half-written."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from array_cases import assert_holds, various
from messages import saying

from convert.core.tensors import Held, Joined
from convert.formats.safetensors import DTYPES, open_safetensors, write_safetensors
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
        bits = np.random.default_rng(0).integers(0, 256, 48, np.uint8)
        arrays = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in various().items()}
        arrays |= {f"z{name}": bits.view(dtype) for name, dtype in DTYPES.items()}
        arrays["zBOOL"] = np.array([True, False])
        write_safetensors(tmp_path / "ours", Held(arrays), metadata)
        safetensors.numpy.save_file(arrays, tmp_path / "theirs", metadata)
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
        assert_holds(open_safetensors(tmp_path / "theirs"), arrays)

    def test_order_of_arrays_does_not_change_the_file(self, tmp_path):
        write_safetensors(tmp_path / "one", Held(various()))
        write_safetensors(tmp_path / "two", Held(dict(reversed(various().items()))))
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    def test_no_tensors(self, tmp_path):
        write_safetensors(tmp_path / "m", Held({}))
        assert list(open_safetensors(tmp_path / "m")) == []

    def test_what_is_read_is_not_the_file(self, tmp_path):
        """Arrays are in memory of their own: changing them changes nothing else."""
        write_safetensors(tmp_path / "m", Held(various()))
        tensors = open_safetensors(tmp_path / "m")
        first = tensors.read("c.count")
        first += 1
        assert_holds(tensors, various())

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"x\.safetensors does not exist"):
            open_safetensors(tmp_path / "x.safetensors")

    def test_unsupported_types_are_all_named(self, tmp_path):
        arrays = {"x": np.zeros(2, complex), "y": np.ones(2), "__metadata__": np.ones(1)}
        with pytest.raises(UserError) as caught:
            write_safetensors(tmp_path / "m", Held(arrays))
        assert "'x': complex128 [2]; possible: BOOL" in str(caught.value)
        assert "'__metadata__' is no possible name" in str(caught.value)

    def test_a_tensor_that_is_not_as_announced(self, tmp_path):
        class Lying(Held):
            def read(self, name):
                return super().read(name).astype(np.float32)

        with pytest.raises(ValueError, check=saying("'x'", "announced as float64 [2]")):
            write_safetensors(tmp_path / "m", Lying({"x": np.ones(2)}))
        assert list(tmp_path.iterdir()) == []

    def test_failure_while_writing_leaves_nothing(self, tmp_path, on_a_full_disk):
        with pytest.raises(UserError, check=saying(tmp_path / "m", "No space left on device")):
            write_safetensors(tmp_path / "m", on_a_full_disk(various()))
        assert list(tmp_path.iterdir()) == []


def header(**entries):
    return json.dumps(entries).encode()


def entry(shape, begin, end, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(path, text, content=b"", length=None):
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + content)
    return path


TWICE = b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":%s}'


class TestHeadersThatLie:
    @pytest.mark.parametrize("size", [0, 5, 8, 100, -1])
    def test_truncated(self, tmp_path, size):
        path = tmp_path / "m.safetensors"
        write_safetensors(path, Held(various()))
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UserError, match=r"m\.safetensors is truncated"):
            open_safetensors(path)

    def test_bytes_that_nobody_lists(self, tmp_path):
        path = write(tmp_path / "m", header(a=entry([2], 0, 2)), b"abc")
        with pytest.raises(UserError, match="not fully covered"):
            open_safetensors(path)

    @pytest.mark.parametrize("length", [5, 2**40, 2**63, 2**64 - 1])
    def test_lengths_of_headers(self, tmp_path, length):
        path = write(tmp_path / "m", b"{}", length=length)
        with pytest.raises(UserError, match="invalid header length|header too large"):
            open_safetensors(path)

    @pytest.mark.parametrize(
        "text",
        [
            b"", b"{", b"[]", b"3", b"null", b'"a"', b"{}{}", b"\xff\xfe{}", b"[" * 90_000,
            b'{"a":' * 90_000, b"9" * 9000, b'{"a" 3}', b'{"\\ud800": 3',
        ],
    )  # fmt: skip
    def test_no_json_object(self, tmp_path, text):
        with pytest.raises(UserError, match="damaged or no safetensors file"):
            open_safetensors(write(tmp_path / "m", text))

    def test_two_entries_of_one_name(self, tmp_path):
        """The library keeps the last; where their places differ the file is refused."""
        other = b'{"dtype":"U8","shape":[3],"data_offsets":[1,4]}'
        with pytest.raises(UserError, match="invalid offset"):
            open_safetensors(write(tmp_path / "m", TWICE % other, bytes(4)))

    @pytest.mark.parametrize(
        "entries",
        [
            {"a": entry([2], 0, 2), "b": entry([2], 1, 3)},
            {"a": entry([2], 0, 2), "b": entry([2], 0, 2)},
            {"a": entry([1], 0, 1), "b": entry([1], 2, 3)},
            {"a": entry([2], 1, 3)},
            {"a": entry([3], 0, 3), "b": entry([0], 1, 1)},
            {"a": entry([4], 0, 4)},
            {"a": entry([2**60], 0, 2**60)},
        ],
    )
    def test_places(self, tmp_path, entries):
        """Overlaps, gaps, and a file that is shorter."""
        with pytest.raises(UserError, match="invalid offset for tensor|not fully covered"):
            open_safetensors(write(tmp_path / "m", header(**entries), bytes(3)))

    @pytest.mark.parametrize(
        "wrong",
        [
            entry([3], 0, 2), entry([1], 0, 2, "F32"), entry([-2], 0, 2), entry([2.0], 0, 2),
            entry([True, 2], 0, 2), entry(["2"], 0, 2), entry(2, 0, 2), entry("2", 0, 2),
            entry([1] * 65 + [2], 0, 2), entry([2**40, 2**40], 0, 2), entry([2**63, 0], 0, 0),
            entry([2], 2, 0), entry([2], -2, 0), entry([2], 0.0, 2.0), entry([2], 0, 10**300),
            entry([2], 0, 2, ["U8"]), entry([2], 0, 2, "X"), {"dtype": "U8", "shape": [2]},
            {"dtype": "U8", "shape": [2], "data_offsets": [0]},
            {"dtype": "U8", "shape": [2], "data_offsets": 2}, 3, None,
        ],
    )  # fmt: skip
    def test_entries(self, tmp_path, wrong):
        path = write(tmp_path / "m", header(a=wrong), bytes(2))
        with pytest.raises(UserError, match="m is truncated|cannot read .*m: 'a'"):
            open_safetensors(path)

    def test_all_types_that_numpy_lacks_at_once(self, tmp_path):
        text = header(a=entry([4], 0, 2, "F4"), b=entry([2], 2, 4), c=entry([4], 4, 6, "F4"))
        with pytest.raises(UserError, match=r"2 faults\n.*'a'.* F4.*\n.*'c'.* F4"):
            open_safetensors(write(tmp_path / "m", text, bytes(6)))

    @pytest.mark.parametrize("metadata", ['{"a":3}', '{"a":null}', "[]", "3", '{"a":"\\ud800"}'])
    def test_metadata(self, tmp_path, metadata):
        path = write(tmp_path / "m", b'{"__metadata__":%s}' % metadata.encode())
        with pytest.raises(UserError, match="damaged or no safetensors file"):
            open_safetensors(path)

    def test_names_that_are_no_text(self, tmp_path):
        text = b'{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        with pytest.raises(UserError, match="damaged or no safetensors file"):
            open_safetensors(write(tmp_path / "m", text))

    def test_what_is_odd_but_right(self, tmp_path):
        """Spaces, unknown keys, empty arrays between others: the library reads them too."""
        entries = {"b": entry([2], 0, 2), "a": entry([0, 5], 2, 2), "c": entry([1, 1], 2, 3)}
        entries["b"]["note"] = [1]
        text = b" \n" + json.dumps({"__metadata__": None} | entries, indent=3).encode() + b"   "
        path = write(tmp_path / "m", text, b"abc")
        with safetensors.safe_open(path, "np") as theirs:
            assert set(theirs.keys()) == set(entries)
        assert open_safetensors(path).read("c").tolist() == [[99]]

    def test_a_file_cut_after_it_was_opened(self, tmp_path):
        path = tmp_path / "m"
        write_safetensors(path, Held({"x": np.ones(9, ml_dtypes.bfloat16)}))
        tensors = open_safetensors(path)
        path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(UserError, check=saying(path, "truncated", "4 bytes")):
            tensors.read("x")
        path.unlink()
        with pytest.raises(UserError, match="cannot read .*m: No such file"):
            tensors.read("x")


def test_a_name_in_two_files_is_an_error():
    with pytest.raises(UserError, check=saying("'x'", "one and in two")):
        Joined("both", [Held({"x": np.zeros(1)}, "one"), Held({"x": np.zeros(1)}, "two")])
