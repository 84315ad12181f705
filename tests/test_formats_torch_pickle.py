"""The container of torch.save, read without torch, whatever a hostile file tries."""

import collections
import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from array_cases import assert_holds, various

from convert.formats.torch_pickle import open_torch_pickle, write_torch_pickle
from convert.tensors import Held
from transformer_spec import UserError

torch = pytest.importorskip("torch", reason="torch writes the pickles these tests read")


class TestTorchPickle:
    def save(self, path, content):
        torch.save(content, path)
        return path

    def test_round_trip(self, tmp_path):
        write_torch_pickle(tmp_path / "m.pt", Held(various()))
        assert_holds(open_torch_pickle(tmp_path / "m.pt"), various())
        loaded = torch.load(tmp_path / "m.pt", weights_only=True)
        assert loaded["b.kernel"].dtype == torch.bfloat16

    def test_views_and_shared_storages(self, tmp_path):
        base = torch.arange(24.0).reshape(4, 6)
        state = collections.OrderedDict(
            base=base, transposed=base.T, row=base[2], corner=base[1:3, 1:4:2],
            expanded=base[0, :1].expand(5), parameter=torch.nn.Parameter(base[3]),
            long=torch.arange(3), half=torch.ones(2).half(), empty=torch.zeros(0, 3),
        )  # fmt: skip
        state._metadata = {"": {"version": 1}}
        path = self.save(tmp_path / "m.pt", state)
        expected = {name: value.detach().numpy().copy() for name, value in state.items()}
        assert_holds(open_torch_pickle(path), expected)

    def test_nested_dict_by_key(self, tmp_path):
        content = {"model": {"x": torch.ones(2)}, "optimizer": {"lr": 0.1}, "step": 3}
        path = self.save(tmp_path / "m.pt", content)
        assert_holds(open_torch_pickle(path, "model"), {"x": np.ones(2, np.float32)})
        with pytest.raises(UserError, match=r"more than tensors: .*--key: model, optimizer"):
            open_torch_pickle(path)
        with pytest.raises(UserError, match="no key 'weights'"):
            open_torch_pickle(path, "weights")

    @pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), 3])
    def test_no_dict(self, tmp_path, content):
        path = self.save(tmp_path / "m.pt", content)
        with pytest.raises(UserError, match="holds no dict of tensors"):
            open_torch_pickle(path)

    def test_legacy_is_refused_clearly(self, tmp_path):
        path = tmp_path / "m.pt"
        torch.save({"x": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
        with pytest.raises(UserError, match="before PyTorch 1.6"):
            open_torch_pickle(path)

    @pytest.mark.parametrize("share", [0, 0.3, 0.9])
    def test_truncated(self, tmp_path, share):
        path = self.save(tmp_path / "m.pt", {"x": torch.ones(200)})
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"m\.pt is truncated"):
            open_torch_pickle(path)

    def test_flipped_bits_are_noticed(self, tmp_path):
        path = self.save(tmp_path / "m.pt", {"x": torch.ones(64)})
        content = bytearray(path.read_bytes())
        at = content.index(np.ones(64, np.float32).tobytes())
        content[at + 9] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match="CRC"):
            open_torch_pickle(path).read("x")

    def test_reads_without_torch(self, tmp_path):
        path = self.save(tmp_path / "m.pt", {"x": torch.arange(3.0)})
        program = (
            "import sys; sys.modules['torch'] = None\n"
            "from pathlib import Path\n"
            "from convert.formats.torch_pickle import open_torch_pickle\n"
            f"print(open_torch_pickle(Path({str(path)!r})).read('x').tolist())"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert result.stdout.strip() == "[0.0, 1.0, 2.0]", result.stderr

    def test_writing_without_torch_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(UserError, match=r"twinformer\[torch\]"):
            write_torch_pickle(tmp_path / "m.pt", Held(various()))


class Calls:
    """Something that pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def write_zip(path, content, compression=zipfile.ZIP_STORED, **entries):
    """A zip file laid out as torch.save does it, with any pickle inside."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("m/data.pkl", content)
        for name, data in entries.items():
            archive.writestr(f"m/data/{name.removeprefix('_')}", data)
    return path


def tensor_pickle(offset=0, shape=(2,), strides=(1,), count=2):
    """The pickle of {"x": tensor}, with whatever header is asked for."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", count)

    rebuild = torch._utils._rebuild_tensor_v2
    tensor = Calls(rebuild, Storage(), offset, shape, strides, False, collections.OrderedDict())
    file = io.BytesIO()
    Pickler(file, 2).dump({"x": tensor})
    return file.getvalue()


class TestHostilePickles:
    @pytest.mark.parametrize(
        ("function", "arguments", "name"),
        [
            (os.system, ("touch /tmp/should-not-exist",), f"{os.system.__module__}.system"),
            (eval, ("1+1",), "builtins.eval"),
            (getattr, (1, "real"), "builtins.getattr"),
            (subprocess.Popen, (["true"],), "subprocess.Popen"),
            (torch.load, ("x",), "torch.serialization.load"),
        ],
    )
    def test_names_what_it_tried_to_call(self, tmp_path, function, arguments, name):
        content = pickle.dumps({"x": Calls(function, *arguments)})
        path = write_zip(tmp_path / "m.pt", content)
        with pytest.raises(UserError, match=f"it asks for {name}"):
            open_torch_pickle(path)

    def test_allowed_functions_cannot_be_changed(self, tmp_path):
        content = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00callK\x01s\x86b."
        path = write_zip(tmp_path / "m.pt", content.replace(b"\x86b", b"b"))
        with pytest.raises(UserError, match="is not read"):
            open_torch_pickle(path)

    @pytest.mark.parametrize(
        "content", [b"", b"garbage", b"\x80\x02.", b"\x80\x02}", b"\x80\xff}."]
    )
    def test_garbage(self, tmp_path, content):
        with pytest.raises(UserError, match="is not read"):
            open_torch_pickle(write_zip(tmp_path / "m.pt", content))

    def test_honest_header_is_read(self, tmp_path):
        data = np.array([3, 5], np.float32)
        path = write_zip(tmp_path / "m.pt", tensor_pickle(), _0=data.tobytes())
        assert_holds(open_torch_pickle(path), {"x": data})

    @pytest.mark.parametrize(
        "header",
        [
            {"offset": 1}, {"shape": (3,)}, {"strides": (2,)}, {"count": 3},
            {"shape": (2, 2), "strides": (1, 1)},
        ],
    )  # fmt: skip
    def test_reaching_outside_the_storage(self, tmp_path, header):
        path = write_zip(tmp_path / "m.pt", tensor_pickle(**header), _0=bytes(8))
        with pytest.raises(UserError, match="cannot read .*'x'"):
            open_torch_pickle(path)

    @pytest.mark.parametrize(
        "header",
        [{"offset": -1}, {"shape": (-2,)}, {"strides": (-1,)}, {"shape": (2.0,)}, {"count": -2},
         {"shape": (2, 1)}],
    )  # fmt: skip
    def test_impossible_numbers(self, tmp_path, header):
        path = write_zip(tmp_path / "m.pt", tensor_pickle(**header), _0=bytes(8))
        with pytest.raises(UserError, match="is not read"):
            open_torch_pickle(path)

    def test_compressed_entries_are_refused(self, tmp_path):
        path = tmp_path / "m.pt"
        write_zip(path, tensor_pickle(), zipfile.ZIP_DEFLATED, _0=bytes(8))
        with pytest.raises(UserError, match="is compressed"):
            open_torch_pickle(path)

    def test_other_zip_files_are_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr("a/b", "c")
        with pytest.raises(UserError, match="without data.pkl"):
            open_torch_pickle(tmp_path / "m.pt")
