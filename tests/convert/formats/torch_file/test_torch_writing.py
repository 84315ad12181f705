"""Files of torch.save written without torch: torch reads every bit of them back."""

import argparse
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
from array_cases import assert_holds, various
from messages import saying

from convert.core.parallel import THREADS
from convert.core.tensors import Held
from convert.formats.content import Namespace, Placed
from convert.formats.torch_file.reader import open_torch_file, open_torch_pickle
from convert.formats.torch_file.writer import DTYPE_NAMES, FOLDER, write_torch_pickle
from transformer_spec import UserError

torch = pytest.importorskip("torch", reason="torch reads what is written here")


def every_type():
    """Random bits in each type that torch has, in a shape without equal lengths."""
    bits = np.random.default_rng(0).integers(0, 256, 96, np.uint8)
    arrays = {
        dtype.name: bits[: 6 * dtype.itemsize].view(dtype).reshape(3, 1, 2)
        for dtype in DTYPE_NAMES
        if dtype.name != "bool"
    }
    return arrays | {"bool": np.array([True, False])} | various()


def bits_of(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_every_bit(tmp_path, mmap):
    write_torch_pickle(tmp_path / "m.pt", Held(every_type()))
    loaded = torch.load(tmp_path / "m.pt", weights_only=True, mmap=mmap)
    assert type(loaded) is dict and set(loaded) == set(every_type())
    for name, array in every_type().items():
        assert tuple(loaded[name].shape) == array.shape
        assert str(loaded[name].dtype) == f"torch.{array.dtype.name}"
        assert loaded[name].is_contiguous()
        assert bits_of(loaded[name]) == np.ascontiguousarray(array).tobytes()
    assert_holds(open_torch_pickle(tmp_path / "m.pt"), every_type())


def test_torch_looks_where_each_storage_lies(tmp_path, monkeypatch):
    """torch can be told to work places out for archives of its own, and must not for these."""
    config = pytest.importorskip("torch.utils.serialization.config")
    write_torch_pickle(tmp_path / "m.pt", Held(every_type()))
    for mmap in (False, True):
        with config.patch({"load.calculate_storage_offsets": True}):
            loaded = torch.load(tmp_path / "m.pt", weights_only=True, mmap=mmap)
        for name, array in every_type().items():
            assert bits_of(loaded[name]) == np.ascontiguousarray(array).tobytes()


def test_entries_of_more_than_32_bits(tmp_path, monkeypatch):
    """The long form of the fields, forced upon small numbers, is read by everyone."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)
    arrays = {"a": np.arange(200.0), "b": np.arange(3.0), "c": np.ones(300)}
    write_torch_pickle(tmp_path / "m.pt", Held(arrays))
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        assert archive.testzip() is None
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert sizes[f"{FOLDER}/data/0"] == 1600
    loaded = torch.load(tmp_path / "m.pt", weights_only=True)
    assert [loaded[name].tolist() for name in arrays] == [a.tolist() for a in arrays.values()]
    assert_holds(open_torch_pickle(tmp_path / "m.pt"), arrays)


def test_other_tools_read_the_archive(tmp_path):
    write_torch_pickle(tmp_path / "m.pt", Held(various()))
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        assert archive.testzip() is None
        assert archive.read(f"{FOLDER}/byteorder") == b"little"
        assert archive.read(f"{FOLDER}/version") == b"3\n"
        for info in archive.infolist():
            with archive.open(info) as file:
                assert file._orig_compress_start % 64 == 0


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    for name in ("one.pt", "two.pt"):
        write_torch_pickle(tmp_path / name, Held(various()))
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_many_tensors(tmp_path):
    arrays = {f"layer.{i}.weight": np.full(i % 3, i) for i in range(2000)}
    write_torch_pickle(tmp_path / "m.pt", Held(arrays))
    loaded = torch.load(tmp_path / "m.pt", weights_only=True)
    assert list(loaded) == list(arrays)
    assert_holds(open_torch_pickle(tmp_path / "m.pt"), arrays)


def test_few_tensors_at_a_time(tmp_path):
    class Counting(Held):
        held = largest = 0

        def read(self, name):
            array = super().read(name).copy()
            Counting.held += 1
            Counting.largest = max(Counting.held, Counting.largest)
            import weakref

            weakref.finalize(array, Counting.release)
            return array

        @staticmethod
        def release():
            Counting.held -= 1

    write_torch_pickle(tmp_path / "m.pt", Counting({str(i): np.ones(9) for i in range(20)}))
    assert Counting.largest <= THREADS


def test_writes_without_torch(tmp_path):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from convert.formats.torch_file.writer import write_torch_pickle\n"
        "from convert.core.tensors import Held\n"
        f"write_torch_pickle(Path({str(tmp_path / 'm.pt')!r}), Held({{'x': np.arange(3)}}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert torch.load(tmp_path / "m.pt", weights_only=True)["x"].tolist() == [0, 1, 2]


def test_a_tree_around_the_tensors(tmp_path):
    """What other libraries write beside the weights; one tensor in two places is stored once."""
    arrays = {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2, np.float32)}
    inner = Namespace("types.SimpleNamespace", {"rate": 0.5, "none": None})
    content = {
        "model": {"w": Placed("w"), "tied": Placed("w"), "b": Placed("b")}, "epoch": 3,
        "args": Namespace("argparse.Namespace", {"layers": [1, -2, 2**40, -(2**70)], "in": inner}),
        "texts": ("a", "ü", "", True, False, 1.25, (), [], {}), 7: {0: "integer keys"},
        "numbers": [255, 256, -1, 2**31 - 1, -(2**31), 2**31, 2**63, -(2**63)],
    }  # fmt: skip
    write_torch_pickle(tmp_path / "m.pt", Held(arrays), content)
    with torch.serialization.safe_globals([argparse.Namespace, types.SimpleNamespace]):
        loaded = torch.load(tmp_path / "m.pt", weights_only=False)
    assert loaded["model"]["w"].data_ptr() == loaded["model"]["tied"].data_ptr()
    assert loaded["model"]["b"].tolist() == [1, 1]
    expected = types.SimpleNamespace(rate=0.5, none=None)
    args = argparse.Namespace(layers=[1, -2, 2**40, -(2**70)])
    setattr(args, "in", expected)
    assert loaded["args"] == args
    plain = {key: content[key] for key in ("epoch", "texts", 7, "numbers")}
    assert {key: loaded[key] for key in plain} == plain
    found = open_torch_file(tmp_path / "m.pt").content
    assert {key: found[key] for key in plain} == plain
    assert found["args"] == {"layers": [1, -2, 2**40, -(2**70)], "in": {"rate": 0.5, "none": None}}


def test_a_tensor_that_the_tree_forgets_is_noticed(tmp_path):
    with pytest.raises(ValueError, check=saying("without a place", "['w']")):
        write_torch_pickle(tmp_path / "m.pt", Held({"w": np.ones(2)}), {"model": {}})


def test_what_a_tree_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="cannot hold object"):
        write_torch_pickle(tmp_path / "m.pt", Held({}), {"model": object()})
    assert list(tmp_path.iterdir()) == []


def test_types_that_torch_lacks_are_all_named(tmp_path):
    arrays = {"x": np.array(["a"]), "y": np.ones(2), "z": np.ones(2, ">f4")}
    with pytest.raises(UserError, match=r"2 faults\n.*'x': <U1 \[1\].*\n.*'z': >f4 \[2\]"):
        write_torch_pickle(tmp_path / "m.pt", Held(arrays))
    assert list(tmp_path.iterdir()) == []


def test_failure_while_writing_leaves_nothing(tmp_path, on_a_full_disk):
    with pytest.raises(UserError, check=saying(tmp_path / "m.pt", "No space left on device")):
        write_torch_pickle(tmp_path / "m.pt", on_a_full_disk(various()))
    assert list(tmp_path.iterdir()) == []
