"""NumPy's own container: what NumPy writes is read, and nothing hostile is unpacked."""

import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from array_cases import assert_holds

from convert.formats import arrays as arrays_module
from convert.formats import npz
from convert.formats.npz import open_npz
from convert.formats.zip_entries import open_archive, read_entries
from transformer_spec import UserError


def plain():
    """Every type that a .npy file can name, in shapes of all kinds."""
    bits = np.random.default_rng(0).integers(0, 256, 96, np.uint8)
    codes = "i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16".split()
    arrays = {code: bits[: 6 * int(code[1:])].view(code).reshape(3, 1, 2) for code in codes}
    return arrays | {
        "bool": np.array([True, False]), "scalar": np.array(3.0), "empty": np.zeros((0, 3)),
        "a/b.c": np.arange(3), "ü": np.ones(1), "columns": np.asfortranarray(np.eye(2, 3)),
    }  # fmt: skip


SAVE = pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])


class TestReading:
    @SAVE
    def test_reads_what_numpy_writes(self, tmp_path, save):
        save(tmp_path / "m.npz", **plain())
        assert_holds(open_npz(tmp_path / "m.npz"), plain())

    @SAVE
    def test_large_arrays(self, tmp_path, save, monkeypatch):
        """Larger than the blocks in which packed bytes are read."""
        monkeypatch.setattr(npz, "blocks", lambda array: arrays_module.blocks(array, 1000))
        arrays = {"x": np.random.default_rng(0).normal(size=4999), "zeros": np.zeros(70_000)}
        save(tmp_path / "m.npz", **arrays)
        assert_holds(open_npz(tmp_path / "m.npz"), arrays)

    @SAVE
    def test_the_other_byte_order(self, tmp_path, save):
        save(tmp_path / "m.npz", x=np.arange(6, dtype=">f4").reshape(2, 3))
        expected = np.arange(6, dtype=np.float32).reshape(2, 3)
        assert_holds(open_npz(tmp_path / "m.npz"), {"x": expected})

    @pytest.mark.parametrize("version", [(1, 0), (2, 0)])
    def test_every_version(self, tmp_path, version):
        member = io.BytesIO()
        np.lib.format.write_array(member, np.arange(3), version)
        write_members(tmp_path / "m.npz", {"x.npy": member.getvalue()})
        assert_holds(open_npz(tmp_path / "m.npz"), {"x": np.arange(3)})


def write_members(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(shape="(2,)", descr="'<f4'", fortran="False", content=bytes(8), header=None):
    """A .npy file whose header says whatever is asked for."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"
    text = (text if header is None else header).encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


class TestHostile:
    def test_objects_are_never_unpickled(self, tmp_path):
        np.savez(tmp_path / "m.npz", x=np.array([{"a": 1}]), y=np.ones(2))
        with pytest.raises(UserError, match=r"'x\.npy'.*'O'.*no Python objects"):
            open_npz(tmp_path / "m.npz")
        content = npy("()", "'|O'", content=pickle.dumps(1))
        write_members(tmp_path / "m.npz", {"x.npy": content})
        with pytest.raises(UserError, match="no Python objects"):
            open_npz(tmp_path / "m.npz")

    @pytest.mark.parametrize(
        "array",
        [np.array(["a"]), np.array([b"a"]), np.zeros(2, [("a", "f4")]), np.zeros(2, "M8[s]"),
         np.zeros(2, ml_dtypes.bfloat16), np.zeros(2, "V4")],
    )  # fmt: skip
    def test_types_that_are_no_plain_numbers(self, tmp_path, array):
        np.savez(tmp_path / "m.npz", x=array)
        with pytest.raises(UserError, match="only plain numbers are read"):
            open_npz(tmp_path / "m.npz")

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (npy("(3,)"), "needs 12 bytes; it has 8"),
            (npy("(1,)"), "needs 4 bytes; it has 8"),
            (npy("(1099511627776,)"), "needs 4398046511104 bytes; it has 8"),
            (npy("(-2,)"), "not made of whole numbers"),
            (npy("(2.0,)"), "shape is not valid"),
            (npy("(True, 2)"), "not made of whole numbers"),
            (npy("2"), "shape is not valid"),
            (npy("(4611686018427387904, 4)"), "larger than any memory"),
            (npy("(1,) * 9"), "malformed|not say"),
            (npy("(2,)", "('<f4', 2)"), "only plain numbers"),
            (npy(fortran="1"), "fortran_order is not a valid bool"),
            (npy(header="{}"), "does not contain the correct keys"),
            (npy(header="[1]"), "not a dictionary"),
            (npy(header="__import__('os')"), "malformed"),
            (npy(header="{'descr': '<f4',"), "never closed|EOF"),
            (npy(header="(" * 900), "never closed|nested|EOF"),
            (b"", "EOF"),
            (b"\x93NUMPY", "EOF"),
            (b"\x93NUMPY\x03\x00\x00\x00", "of version"),
            (b"\x93NUMPY\x01\x00\xff\xff", "EOF"),
            (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "EOF"),
        ],
    )
    def test_headers_that_lie(self, tmp_path, content, message, compression):
        path = write_members(tmp_path / "m.npz", {"x.npy": content}, compression)
        with pytest.raises(UserError, match=message):
            open_npz(path)

    def test_headers_of_python_2(self, tmp_path):
        write_members(tmp_path / "m.npz", {"x.npy": npy("(2L, 1L)")})
        assert_holds(open_npz(tmp_path / "m.npz"), {"x": np.zeros((2, 1), np.float32)})

    def test_all_faults_at_once(self, tmp_path):
        write_members(tmp_path / "m.npz", {"x.npy": npy("(3,)"), "y.npy": b"", "z.txt": b"a"})
        with pytest.raises(UserError, match=r"3 faults\n.*'x\.npy'.*\n.*'y\.npy'.*\n.*'z\.txt'"):
            open_npz(tmp_path / "m.npz")

    def test_two_members_of_one_name(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
            archive.writestr("x.npy", npy())
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("x.npy", npy())
        with pytest.raises(UserError, match=r"two entries 'x\.npy'"):
            open_npz(tmp_path / "m.npz")

    @SAVE
    @pytest.mark.parametrize("size", [0, 50, -60, -1])
    def test_truncated(self, tmp_path, size, save):
        save(tmp_path / "m.npz", **plain())
        content = (tmp_path / "m.npz").read_bytes()
        (tmp_path / "m.npz").write_bytes(content[:size])
        with pytest.raises(UserError, match="truncated or no .npz file"):
            open_npz(tmp_path / "m.npz")

    @SAVE
    def test_flipped_bits_are_noticed(self, tmp_path, save):
        save(tmp_path / "m.npz", x=np.random.default_rng(0).normal(size=400))
        content = bytearray((tmp_path / "m.npz").read_bytes())
        content[1500] ^= 1
        (tmp_path / "m.npz").write_bytes(content)
        with pytest.raises(UserError, match="CRC-32"):
            open_npz(tmp_path / "m.npz").read("x")

    def claim(self, path, field, value):
        """Change a size in the directory of an archive: 20 packed, 24 unpacked, 42 the place."""
        content = bytearray(path.read_bytes())
        struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + field, value)
        path.write_bytes(content)

    @pytest.mark.parametrize("field", [20, 24, 42])
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_directory_that_lies(self, tmp_path, field, compression):
        member = npy("(1000000000,)", content=bytes(8000))
        path = write_members(tmp_path / "m.npz", {"x.npy": member}, compression)
        self.claim(path, field, 4_000_000_072)
        with pytest.raises(UserError, match="damaged"):
            open_npz(path)

    @pytest.mark.parametrize("count", [pytest.param(0xFFFF, marks=pytest.mark.thorough), 0x10000])
    def test_numbers_of_entries(self, tmp_path, count):
        """As many as the two bytes hold, and more, for which there is a longer field."""
        path = tmp_path / "m.npz"
        write_members(path, dict.fromkeys((f"{i}.npy" for i in range(count)), b""))
        with open_archive(path, "file") as archive:
            assert len(read_entries(path, archive)) == count

    def test_entries_that_are_counted_and_not_listed(self, tmp_path):
        """A comment that swallows the entry after it."""
        path = write_members(tmp_path / "m.npz", {"x.npy": npy(), "y.npy": npy()})
        content = bytearray(path.read_bytes())
        struct.pack_into("<H", content, content.index(b"PK\x01\x02") + 32, 46 + 5)
        path.write_bytes(content)
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == ["x.npy"]
        with pytest.raises(UserError, match="does not list what it counts"):
            open_npz(path)

    def test_an_end_that_counts_nothing(self, tmp_path):
        """Zeros in the end of an archive make zipfile see one without entries."""
        path = write_members(tmp_path / "m.npz", {"x.npy": npy()})
        content = path.read_bytes()
        at = content.rindex(b"PK\x05\x06") + 10
        path.write_bytes(content[:at] + bytes(8) + content[at + 1 :])
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == []
        with pytest.raises(UserError, match="its directory lists nothing"):
            open_npz(path)

    def test_a_packed_array_that_is_shorter_or_longer_than_claimed(self, tmp_path):
        for claimed in (7999, 8001):
            head = npy(f"({claimed},)", "'|u1'", content=b"")
            member = head + bytes(8000)
            path = write_members(tmp_path / "m.npz", {"x.npy": member}, zipfile.ZIP_DEFLATED)
            self.claim(path, 24, len(head) + claimed)
            with pytest.raises(UserError, match="cannot read x.npy"):
                open_npz(path).read("x")

    def test_encrypted_or_packed_otherwise(self, tmp_path):
        path = write_members(tmp_path / "m.npz", {"x.npy": npy()}, zipfile.ZIP_BZIP2)
        with pytest.raises(UserError, match="encrypted or compressed in a way"):
            open_npz(path)

    def test_missing(self, tmp_path):
        with pytest.raises(UserError, match="does not exist"):
            open_npz(tmp_path / "m.npz")
