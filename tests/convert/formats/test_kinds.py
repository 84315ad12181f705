"""Files are known by their content, whatever their name, as libraries write them; and others."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from messages import saying

from convert.__main__ import main
from convert.checkpoints.reading import open_content
from convert.formats.kinds import container_of
from transformer_spec import UserError

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float32)}


def torch_file(path, **options):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(x) for name, x in ARRAYS.items()}, path, **options)


def safetensors_file(path):
    pytest.importorskip("safetensors.numpy").save_file(ARRAYS, path)


def msgpack_file(path):
    serialization = pytest.importorskip("flax.serialization")
    path.write_bytes(serialization.to_bytes(ARRAYS))


def npz_file(path):
    with path.open("wb") as stream:
        np.savez(stream, **{name.replace(".", "_"): x for name, x in ARRAYS.items()})


WRITERS = {
    "pt": torch_file,
    "pt, old form": lambda path: torch_file(path, _use_new_zipfile_serialization=False),
    "safetensors": safetensors_file,
    "msgpack": msgpack_file,
    "npz": npz_file,
}


@pytest.mark.parametrize("name", ["epoch=1.ckpt", "model.chkpt", "checkpoint_1000", "weights.pt"])
@pytest.mark.parametrize("kind", WRITERS)
def test_under_any_name(kind, name, tmp_path, capsys):
    WRITERS[kind](tmp_path / name)
    assert container_of(tmp_path / name) == kind.partition(",")[0]
    assert main(["inspect", str(tmp_path / name)]) == 0
    assert f"({kind.partition(',')[0]})" in capsys.readouterr().out


def tar(path):
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("pytorch_model.bin")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("opus/config.json", "{}")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 312087009\n"
OTHERS = {
    "lfs": (lambda path: path.write_bytes(POINTER), "git lfs pull"),
    "html": (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>401</html>"), "login"),
    "html without its type": (lambda path: path.write_bytes(b"<html lang='en'>"), "login"),
    "html in capitals": (lambda path: path.write_bytes(b"<HEAD>\n"), "login"),
    "html with a mark": (lambda path: path.write_bytes(b"\xef\xbb\xbf<!doctype html>"), "login"),
    "xml": (lambda path: path.write_bytes(b"<?xml version='1.0'?><Error/>"), "download it again"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "from_tf=True"),
    "gguf": (lambda path: path.write_bytes(b"GGUF" + bytes(64)), "llama.cpp"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"abc")), "archive (gzip)"),
    "tar": (tar, "archive (tar)"),
    "zip": (zipped, "opus/config.json"),
}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "x.msgpack", "noname"])
@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_weights_is_said_to_be_that(other, name, tmp_path):
    write, word = OTHERS[other]
    write(tmp_path / name)
    with pytest.raises(UserError, check=saying(name, word)):
        container_of(tmp_path / name)


@pytest.mark.parametrize("first", ["<unk>\t0", "<pad>", "<s> 0", "<0x00>\t-2.5"])
def test_a_vocabulary_is_no_page(first, tmp_path):
    """As sentencepiece writes NAME.vocab, whose first piece is <unk>, and others theirs."""
    (tmp_path / "sp.vocab").write_text(f"{first}\n<s>\t0\n</s>\t0\n\u2581the\t-3.2\n", "utf-8")
    assert container_of(tmp_path / "sp.vocab") is None


def test_an_onnx_program(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(UserError, match="ONNX"):
        container_of(tmp_path / "encoder.onnx")


def test_a_file_that_is_cut_off_is_for_its_reader(tmp_path):
    """Its content says nothing; the reader of its name says where it ends."""
    safetensors_file(tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:40])
    assert container_of(tmp_path / "model.safetensors") is None
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04" + bytes(50))
    assert container_of(tmp_path / "x.npz") == "npz"


@pytest.mark.parametrize("name", ["epoch=1.ckpt", "weights", "model.safetensors", "x.pt"])
@pytest.mark.parametrize(("kind", "what"), [("pt", "file of torch.save"), ("npz", ".npz file")])
def test_an_archive_that_is_cut_off_is_told_so_under_any_name(kind, what, name, tmp_path):
    """The list of what is in it was at its end."""
    WRITERS[kind](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for length in (len(content) - 40, 200, 20):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(UserError, match="is truncated or no"):
            open_content(tmp_path / name)
    (tmp_path / name).write_bytes(content[:200])
    with pytest.raises(UserError, match=f"is truncated or no {what}"):
        open_content(tmp_path / name)


@pytest.mark.parametrize("start", [b"\x89PNG\r\n\x1a\n", b"\x82", b"\xde\x00\x01\x05"])
def test_a_picture_is_no_msgpack(tmp_path, start):
    """Its first byte would begin a map, whose keys are texts."""
    (tmp_path / "parity.png").write_bytes(start + bytes(64) * (len(start) > 1))
    assert container_of(tmp_path / "parity.png") is None
    with pytest.raises(UserError, check=saying(tmp_path, "should hold", "flax_model.msgpack")):
        open_content(tmp_path)


def test_a_plain_pickle_is_for_the_reader_of_torch_files(tmp_path):
    (tmp_path / "x").write_bytes(pickle.dumps({"a": 1}, 4))
    assert container_of(tmp_path / "x") == "pt"
