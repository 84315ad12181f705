"""The container of torch.save as a source of tensors, read without torch."""

import collections
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from array_cases import assert_holds, various
from messages import saying

from convert.core.tensors import Held
from convert.formats.torch_file import strided
from convert.formats.torch_file.reader import open_torch_file, open_torch_pickle
from convert.formats.torch_file.writer import write_torch_pickle
from transformer_spec import UserError

torch = pytest.importorskip("torch", reason="torch writes the pickles these tests read")

BOTH_FORMS = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])


def save(path, content, as_zip=True, **options):
    torch.save(content, path, _use_new_zipfile_serialization=as_zip, **options)
    return path


def every_dtype():
    """One tensor of each type that has a place in NumPy or ml_dtypes, with all kinds of bits."""
    bits = torch.randint(0, 256, (48,), dtype=torch.uint8, generator=torch.manual_seed(3))
    names = (
        "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
        "complex64", "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2",
        "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    )  # fmt: skip
    tensors = {name: bits.clone().view(getattr(torch, name)) for name in names}
    return tensors | {"bool": bits > 99}


class TestReading:
    @BOTH_FORMS
    def test_views_and_shared_storages(self, tmp_path, as_zip):
        base = torch.arange(24.0).reshape(4, 6)
        state = collections.OrderedDict(
            base=base, transposed=base.T, row=base[2], corner=base[1:3, 1:4:2],
            expanded=base[0, :1].expand(5), parameter=torch.nn.Parameter(base[3]),
            long=torch.arange(3), half=torch.ones(2).half(), empty=torch.zeros(0, 3),
            scalar=base[1, 1], windows=base.reshape(-1).unfold(0, 4, 1),
            permuted=torch.arange(30).reshape(2, 3, 5).permute(1, 2, 0),
            middle=torch.arange(30).reshape(2, 3, 5)[:, 1:2].expand(2, 7, 5),
        )  # fmt: skip
        state._metadata = {"": {"version": 1}}
        path = save(tmp_path / "m.pt", state, as_zip)
        expected = {name: value.detach().numpy().copy() for name, value in state.items()}
        assert_holds(open_torch_pickle(path), expected)

    @pytest.mark.parametrize("span", [1, 64, 200])
    def test_views_with_holes_are_read_in_groups(self, tmp_path, monkeypatch, span):
        """As above where the parts of a view lie too far apart to be read at once."""
        monkeypatch.setattr(strided, "SPAN", span)
        base = torch.arange(210.0).reshape(5, 6, 7)
        state = {
            "columns": base[:, :, 3], "steps": base[::2, 1::3, ::4], "swapped": base[:, 2:4].mT,
            "windows": base.reshape(-1)[5:99].unfold(0, 60, 1), "one": base[4:, 5:, 6:],
        }  # fmt: skip
        path = save(tmp_path / "m.pt", state)
        expected = {name: value.numpy().copy() for name, value in state.items()}
        assert_holds(open_torch_pickle(path), expected)

    @BOTH_FORMS
    def test_every_type(self, tmp_path, as_zip):
        state = every_dtype()
        path = save(tmp_path / "m.pt", state, as_zip)
        tensors = open_torch_pickle(path)
        for name, tensor in state.items():
            assert tensors[name].dtype.name == name
            assert tensors.read(name).tobytes() == tensor.view(torch.uint8).numpy().tobytes()

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @BOTH_FORMS
    def test_every_protocol(self, tmp_path, protocol, as_zip):
        path = save(tmp_path / "m.pt", {"x": torch.arange(3.0)}, as_zip, pickle_protocol=protocol)
        assert_holds(open_torch_pickle(path), {"x": np.arange(3, dtype=np.float32)})

    @BOTH_FORMS
    def test_nested_dict_by_key(self, tmp_path, as_zip):
        content = {
            "model": {"x": torch.ones(2)}, "optimizer": {"lr": 0.1}, "step": 3,
            "a": {"b": {"y": torch.zeros(1)}}, "c.d": {"z": torch.zeros(1)},
        }  # fmt: skip
        path = save(tmp_path / "m.pt", content, as_zip)
        assert_holds(open_torch_pickle(path, "model"), {"x": np.ones(2, np.float32)})
        assert list(open_torch_pickle(path, "a.b")) == ["y"]
        assert list(open_torch_pickle(path, "c.d")) == ["z"]
        with pytest.raises(UserError, check=saying("more than tensors", "--key: model, a.b, c.d")):
            open_torch_pickle(path)
        with pytest.raises(UserError, match="no key 'weights'; choose one"):
            open_torch_pickle(path, "weights")
        with pytest.raises(UserError, match="more than tensors: lr"):
            open_torch_pickle(path, "optimizer")

    @pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), 3])
    def test_no_dict(self, tmp_path, content):
        path = save(tmp_path / "m.pt", content)
        with pytest.raises(UserError, match="holds no dict of tensors"):
            open_torch_pickle(path)

    def test_two_keys_of_one_name(self, tmp_path):
        path = save(tmp_path / "m.pt", {1: torch.ones(2), "1": torch.ones(2)})
        with pytest.raises(UserError, match="'1' comes twice"):
            open_torch_pickle(path)

    @BOTH_FORMS
    def test_reads_without_torch(self, tmp_path, as_zip):
        path = save(tmp_path / "m.pt", {"x": torch.arange(3.0)}, as_zip)
        program = (
            "import sys; sys.modules['torch'] = None\n"
            "from pathlib import Path\n"
            "from convert.formats.torch_file.reader import open_torch_pickle\n"
            f"print(open_torch_pickle(Path({str(path)!r})).read('x').tolist())"
        )
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert result.stdout.strip() == "[0.0, 1.0, 2.0]", result.stderr

    def test_shards_with_an_index(self, tmp_path):
        save(tmp_path / "pytorch_model-00001-of-00002.bin", {"x": torch.ones(2)})
        save(tmp_path / "pytorch_model-00002-of-00002.bin", {"y": torch.zeros(3)}, as_zip=False)
        index = tmp_path / "pytorch_model.bin.index.json"
        shards = '"x": "pytorch_model-00001-of-00002.bin", "y": "pytorch_model-00002-of-00002.bin"'
        index.write_text(f'{{"weight_map": {{{shards}}}}}')
        expected = {"x": np.ones(2, np.float32), "y": np.zeros(3, np.float32)}
        assert_holds(open_torch_pickle(index), expected)

    def test_a_program_of_torchscript_is_refused_with_the_way_out(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr("m/data.pkl", b"\x80\x02}.")
            archive.writestr("m/constants.pkl", b"\x80\x02).")
        way_out = (
            r"TorchScript program, .*torch\.jit\.load\('m\.pt'\)\.state_dict\(\), 'model\.pt'\)"
        )
        with pytest.raises(UserError, match=way_out):
            open_torch_pickle(tmp_path / "m.pt")

    def test_tensors_that_are_no_plain_numbers(self, tmp_path):
        path = save(tmp_path / "m.pt", {"x": torch.eye(3).to_sparse()})
        with pytest.raises(UserError, match="holds more than tensors: x"):
            open_torch_pickle(path)

    def test_conjugate_views_are_refused(self, tmp_path):
        path = save(tmp_path / "m.pt", {"x": torch.ones(2, dtype=torch.complex64).conj()})
        with pytest.raises(UserError, match="marked as conjugate or negative"):
            open_torch_pickle(path)


class TestDamage:
    @pytest.mark.parametrize("share", [0, 0.3, 0.9])
    @BOTH_FORMS
    def test_truncated(self, tmp_path, share, as_zip):
        path = save(tmp_path / "m.pt", {"x": torch.ones(200)}, as_zip)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"m\.pt is (truncated|not read)"):
            open_torch_pickle(path)

    @pytest.mark.parametrize("part", [slice(None), slice(3, 9), slice(None, None, 2)])
    def test_flipped_bits_are_noticed(self, tmp_path, part):
        path = save(tmp_path / "m.pt", {"x": torch.ones(64)[part]})
        content = bytearray(path.read_bytes())
        at = content.index(np.ones(64, np.float32).tobytes())
        content[at + 9] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match="CRC"):
            open_torch_pickle(path).read("x")

    def test_files_written_without_checksums(self, tmp_path):
        torch.serialization.set_crc32_options(False)
        try:
            path = save(tmp_path / "m.pt", {"x": torch.arange(3.0)})
        finally:
            torch.serialization.set_crc32_options(True)
        assert_holds(open_torch_pickle(path), {"x": np.arange(3, dtype=np.float32)})

    def test_other_zip_files_are_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
            archive.writestr("a/b", "c")
        with pytest.raises(UserError, match="without data.pkl"):
            open_torch_pickle(tmp_path / "m.pt")

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match=r"m\.pt does not exist"):
            open_torch_file(tmp_path / "m.pt")

    def test_round_trip_of_all_kinds(self, tmp_path):
        write_torch_pickle(tmp_path / "m.pt", Held(various()))
        assert_holds(open_torch_pickle(tmp_path / "m.pt"), various())
