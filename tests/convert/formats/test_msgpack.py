"""Flax's MessagePack container: flax reads what is written, and what flax writes is read."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from array_cases import assert_holds, various
from messages import saying

from convert.core.tensors import Held
from convert.formats import msgpack as container
from convert.formats.content import Placed, nest
from convert.formats.msgpack import open_msgpack, open_msgpack_file, write_msgpack
from transformer_spec import UserError

serialization = pytest.importorskip("flax.serialization")
msgpack = pytest.importorskip("msgpack")


def wide():
    """Many names, lengths on both sides of each limit of the encoding."""
    arrays = {f"many.{i}": np.full(1, i, np.int16) for i in range(20)}
    arrays |= {f"size.{n}": np.zeros(n, np.uint8) for n in (0, 1, 2, 8, 200, 242, 256, 66000)}
    arrays |= {"n" * n: np.ones((1,) * (n % 17)) for n in (1, 31, 32, 255, 256, 70000)}
    arrays |= {"shape": np.zeros((127, 0, 128, 256, 65536), np.float32), "ü.é": np.ones(2)}
    return arrays


def contents(tree):
    """A nested dict as dotted names and what flax itself reads there."""
    flat = {}
    for key, value in tree.items():
        inner = contents(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): part for name, part in inner.items()}
    return flat


class TestRoundTrip:
    @pytest.mark.parametrize("arrays", [various(), wide()], ids=["various", "wide"])
    def test_same_bytes_as_flax(self, tmp_path, arrays):
        write_msgpack(tmp_path / "m.msgpack", Held(arrays))
        expected = serialization.msgpack_serialize(nest(arrays))
        assert (tmp_path / "m.msgpack").read_bytes() == expected
        assert_holds(open_msgpack(tmp_path / "m.msgpack"), arrays)

    def test_flax_restores(self, tmp_path):
        write_msgpack(tmp_path / "m.msgpack", Held(various()))
        restored = serialization.msgpack_restore((tmp_path / "m.msgpack").read_bytes())
        found = contents(restored)
        assert set(found) == set(various())
        for name, array in various().items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes()

    def test_flax_fills_a_model(self, tmp_path):
        jnp = pytest.importorskip("jax.numpy")
        template = {"dense": {"kernel": jnp.zeros((2, 3), jnp.bfloat16), "bias": jnp.zeros(3)}}
        arrays = {
            "dense.kernel": np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3),
            "dense.bias": np.arange(3, dtype=np.float32),
        }
        write_msgpack(tmp_path / "m.msgpack", Held(arrays))
        filled = serialization.from_bytes(template, (tmp_path / "m.msgpack").read_bytes())
        for leaf in ("kernel", "bias"):
            np.testing.assert_array_equal(filled["dense"][leaf], arrays[f"dense.{leaf}"])

    @pytest.mark.parametrize("size", [1, 7, 16, 23, 24, 100])
    def test_arrays_in_pieces(self, tmp_path, monkeypatch, size):
        """Flax cuts arrays above a limit; here the limit is small."""
        arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b.c": np.float64([1, 2])}
        monkeypatch.setattr(container, "CHUNK_SIZE", size)
        monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", size)
        write_msgpack(tmp_path / "m.msgpack", Held(arrays))
        content = (tmp_path / "m.msgpack").read_bytes()
        assert content == serialization.msgpack_serialize(nest(arrays))
        assert (b"__msgpack_chunked_array__" in content) == (size < 24)
        assert_holds(open_msgpack(tmp_path / "m.msgpack"), arrays)
        restored = serialization.msgpack_restore(content)
        np.testing.assert_array_equal(restored["a"], arrays["a"])

    def test_order_of_arrays_does_not_change_the_file(self, tmp_path):
        write_msgpack(tmp_path / "one", Held(various()))
        write_msgpack(tmp_path / "two", Held(dict(reversed(various().items()))))
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    def test_a_tree_around_the_arrays(self, tmp_path):
        content = {
            "step": 300, "params": {"w": Placed("w")}, "list": [1, -1, -33, -200, -70000, 2**40],
            "none": None, "yes": True, "rate": 0.5, "text": "x" * 40, "long": [0] * 20, "e": {},
        }  # fmt: skip
        write_msgpack(tmp_path / "m", Held({"w": np.ones(2)}), content)
        restored = serialization.msgpack_restore((tmp_path / "m").read_bytes())
        np.testing.assert_array_equal(restored.pop("params")["w"], [1, 1])
        del content["params"]
        assert restored == content
        found = open_msgpack_file(tmp_path / "m")
        assert {key: found.content[key] for key in content} == content

    def test_needs_no_flax(self, tmp_path):
        program = (
            "import sys\n"
            "for name in ('jax', 'flax', 'torch'): sys.modules[name] = None\n"
            "from pathlib import Path\n"
            "import numpy as np\n"
            "from convert.formats.msgpack import open_msgpack, write_msgpack\n"
            "from convert.core.tensors import Held\n"
            f"path = Path({str(tmp_path / 'm')!r})\n"
            "write_msgpack(path, Held({'a.b': np.arange(3)}))\n"
            "print(open_msgpack(path).read('a.b').tolist())"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert result.stdout.strip() == "[0, 1, 2]", result.stderr


class TestReading:
    def test_the_state_of_a_training_run(self, tmp_path):
        """to_bytes of a whole state: numbers, lists as dicts, scalars of NumPy, complex ones."""
        state = {
            "step": 3, "params": {"w": np.ones((2, 2), np.float32)}, "none": None, "z": 1 + 2j,
            "opt": [{"count": np.int32(4)}, (), {"mu": {"w": np.zeros(2, ml_dtypes.bfloat16)}}],
        }  # fmt: skip
        (tmp_path / "m").write_bytes(serialization.to_bytes(state))
        file = open_msgpack_file(tmp_path / "m")
        assert (file.content["step"], file.content["none"], file.content["z"]) == (3, None, 1 + 2j)
        assert file.content["opt"]["1"] == {}
        assert file.read(file.content["opt"]["0"]["count"]) == np.int32(4)
        assert_holds(open_msgpack(tmp_path / "m", "params"), {"w": np.ones((2, 2), np.float32)})
        assert set(file.dicts()) == {"params", "opt.0", "opt.2.mu"}
        with pytest.raises(UserError, match="more than tensors: step, none, z"):
            open_msgpack(tmp_path / "m")

    def test_shards_with_an_index(self, tmp_path):
        write_msgpack(tmp_path / "m-1.msgpack", Held({"a.b": np.ones(2)}))
        write_msgpack(tmp_path / "m-2.msgpack", Held({"a.c": np.zeros(3)}))
        index = tmp_path / "flax_model.msgpack.index.json"
        index.write_text('{"weight_map": {"a.b": "m-1.msgpack", "a.c": "m-2.msgpack"}}')
        assert_holds(open_msgpack(index), {"a.b": np.ones(2), "a.c": np.zeros(3)})

    def test_two_ways_to_one_name(self, tmp_path):
        tree = {"a.b": np.ones(2), "a": {"b": np.ones(2)}}
        (tmp_path / "m").write_bytes(serialization.msgpack_serialize(tree))
        with pytest.raises(UserError, match=r"'a\.b' comes twice"):
            open_msgpack(tmp_path / "m")

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match="does not exist"):
            open_msgpack(tmp_path / "m")


def array_bytes(shape=(2,), name="float32", content=bytes(8), kind=1):
    inner = msgpack.packb((shape, name, content))
    return msgpack.packb({"x": msgpack.ExtType(kind, inner)})


def pieces(shape, chunks):
    tree = {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}
    return serialization.msgpack_serialize({"x": tree})


class TestDamage:
    @pytest.mark.parametrize("size", [0, 1, 7, 40, -9, -1])
    def test_truncated(self, tmp_path, size):
        write_msgpack(tmp_path / "m", Held(various()))
        content = (tmp_path / "m").read_bytes()
        (tmp_path / "m").write_bytes(content[:size])
        with pytest.raises(UserError, match="truncated"):
            open_msgpack(tmp_path / "m")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (array_bytes((3,)), "needs 12 bytes, it has 8"),
            (array_bytes((-2,)), "not made of whole numbers"),
            (array_bytes((2.0,)), "not made of whole numbers"),
            (array_bytes("ab"), "no list of numbers"),
            (array_bytes((2**40, 2**40)), "larger than any memory"),
            (array_bytes((2**63, 0), content=b""), "not made of whole numbers"),
            (array_bytes(name="object"), "of type 'object'; readable"),
            (array_bytes(name=["float32"]), r"of type \['float32'\]"),
            (array_bytes(content=[1, 2]), "no bytes"),
            (array_bytes(kind=5), "extension of type 5"),
            (array_bytes() + b"\xc0", "1 bytes follow"),
            (msgpack.packb({"x": msgpack.ExtType(1, b"\x92\x90\xa7float32")}), "not made of shape"),
            (msgpack.packb({"x": msgpack.ExtType(1, b"\x93\x90\xa5uint8\xc4\x01ab")}), "shorter"),
            (b"\x81\xa1x\xc7\x0c\x01\x93\x91\x09\xa5uint8\xc4\x09a", "truncated"),
            (msgpack.packb({"x": msgpack.ExtType(2, b"\x93\x01\x02\x03")}), "complex number"),
            (msgpack.packb({b"1": 2}), "no text"),
            (msgpack.packb({1: 2, "1": 3}), "key '1' comes twice"),
            (msgpack.packb({(1, 2): 2}), "no text"),
            (b"\x82\xa1a\xc0\xa1a\xc0", "key 'a' comes twice"),
            (b"\xc1", "FormatError"),
            (b"\xc7\x06\x01\x93\x90\x81\x80\xc0\xc0", "unhashable"),
            (b"\xdf\xff\xff\xff\xff", "truncated"),
            (b"\xdd\xff\xff\xff\xff\xc0", "truncated"),
            (b"\xdb\x7f\xff\xff\xffabc", "truncated|exceeds"),
            (b"\x81\xa1\xff\xc0", "utf-8"),
            (b"\x91" * 1000 + b"\xc0", "nested more than 100 deep"),
            (b"\x81\xa1a" * 1000 + b"\xc0", "nested more than 100 deep"),
            (pieces({"0": 3}, {}), "something else"),
            (pieces({"0": 3}, {"0": np.ones(2)}), "other types or sizes"),
            (pieces({"0": 3}, {"0": np.ones(1), "1": np.ones(4, "f4")}), "other types or sizes"),
            (pieces({"0": 1}, {"1": np.ones(1)}), "does not number them"),
            (pieces({"0": 1}, {"0": 3}), "something else"),
            (pieces(3, {"0": np.ones(1)}), "does not number them"),
        ],
    )
    def test_headers_that_lie(self, tmp_path, content, message):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(UserError, match=message):
            open_msgpack(tmp_path / "m")

    @pytest.mark.parametrize("content", [b"\x93\x01\x02\x03", b"\x05", b"\xc0"])
    def test_no_dict(self, tmp_path, content):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(UserError, match="holds no dict of tensors"):
            open_msgpack(tmp_path / "m")


class TestWriting:
    def test_names_that_cannot_nest(self, tmp_path):
        with pytest.raises(UserError, match="beginning|array itself"):
            write_msgpack(tmp_path / "m", Held({"a": np.ones(1), "a.b": np.ones(1)}))

    def test_types_that_flax_lacks_are_all_named(self, tmp_path):
        arrays = {"x": np.array(["a"]), "y": np.ones(2), "z": np.ones(2, ">f4")}
        with pytest.raises(UserError, match=r"2 faults\n.*'x': <U1 \[1\].*\n.*'z': >f4 \[2\]"):
            write_msgpack(tmp_path / "m", Held(arrays))

    def test_failure_while_writing_leaves_nothing(self, tmp_path, on_a_full_disk):
        with pytest.raises(UserError, check=saying(tmp_path / "m", "No space left on device")):
            write_msgpack(tmp_path / "m", on_a_full_disk(various()))
        assert list(tmp_path.iterdir()) == []
