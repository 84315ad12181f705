"""The container of T5X: arrays in the tree and in folders, and what of them is damaged."""

import msgpack
import numpy as np
import pytest
from flax.serialization import msgpack_restore
from messages import says
from t5x_cases import specified, stored

from convert.checkpoints.reading import open_content
from convert.core.tensors import Held
from convert.formats.kinds import container_of
from convert.formats.orbax import open_orbax
from convert.formats.t5x_writer import write_t5x
from transformer_spec import UserError

GZIP, ZSTD = {"id": "gzip", "level": 1}, {"id": "zstd", "level": 1}
A, B = np.arange(35.0).reshape(7, 5), np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def write(folder, *changes):
    """Two arrays, one compressed in each way; ``changes`` are of their specifications."""
    specs = {
        "a": specified(folder, "target.a", A, "gfile", GZIP),
        "b": specified(folder, "target.b", B, "gcs", ZSTD),
    }
    for change in changes:
        change(specs)
    content = {"version": 3, "optimizer": {"target": specs, "state": {"step": 5}}}
    (folder / "checkpoint").write_bytes(msgpack.packb(content))
    return folder


def fault(folder):
    with pytest.raises(UserError) as raised:
        open_orbax(folder).read_all()
    return str(raised.value)


def assert_read(folder):
    found = open_orbax(folder).read_all()
    assert found["optimizer.target.a"].tobytes() == A.tobytes()
    assert found["optimizer.target.b"].tobytes() == B.tobytes()
    assert found["optimizer.state.step"] == 5


def test_file_systems_and_compressors(tmp_path):
    assert_read(write(tmp_path))


def test_a_path_beside_the_store(tmp_path):
    """As tensorstore before 0.1.14 had it."""

    def old(specs):
        specs["a"] |= {"path": "target.a", "kvstore": {"driver": "gfile"}}
        specs["b"] |= {"kvstore": {"driver": "gcs", "bucket": "t5x-dummy-bucket"}}
        specs["b"]["path"] = "target.b/"

    assert_read(write(tmp_path, old))


@pytest.mark.parametrize("numbered", [False, True])
def test_a_folder_that_does_not_say_what_it_is(numbered, tmp_path):
    def as_dicts(specs):
        for spec in specs.values() if numbered else ():
            for key in ("shape", "chunks"):
                spec["metadata"][key] = {str(i): n for i, n in enumerate(spec["metadata"][key])}

    write(tmp_path, as_dicts)
    for name in "ab":
        (tmp_path / f"target.{name}" / ".zarray").unlink()
    assert_read(tmp_path)


def test_folders_that_are_missing_are_all_named(tmp_path):
    write(tmp_path)
    for name in "ab":
        (tmp_path / f"target.{name}").rename(tmp_path / f"gone.{name}")
    told = fault(tmp_path)
    says(told, "2 faults")
    says(told, "optimizer.target.a", "not there")
    says(told, "optimizer.target.b", "not there")


@pytest.mark.parametrize("size", [None, 0, 20])
def test_a_chunk_that_is_missing_or_cut(size, tmp_path):
    chunk = write(tmp_path) / "target.a" / "1.0"
    if size is None:
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:size])
    says(fault(tmp_path), "cannot read 'optimizer.target.a'")


def test_the_optimizer_may_be_gone(tmp_path):
    def with_state(specs):
        specs["state.x"] = specified(tmp_path, "state.x", B, "file", GZIP)

    write(tmp_path, with_state)
    content = msgpack.unpackb((tmp_path / "checkpoint").read_bytes())
    content["optimizer"]["state"]["x"] = content["optimizer"]["target"].pop("state.x")
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(content))
    assert "optimizer.state.x" in open_orbax(tmp_path)
    for file in (tmp_path / "state.x").iterdir():
        file.unlink()
    (tmp_path / "state.x").rmdir()
    assert_read(tmp_path)
    assert "optimizer.state.x" not in open_orbax(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kvstore": {"driver": "file", "path": "../target.a"}}, "leads out of the folder"),
        ({"kvstore": {"driver": "file", "path": "/target.a"}}, "leads out of the folder"),
        ({"kvstore": {"driver": "file"}}, "its folder is None"),
        ({"kvstore": 3}, "its key-value store is 3"),
        ({"driver": "n5"}, "its driver is 'n5'; zarr is read"),
    ],
)
def test_a_specification_that_cannot_be_followed(change, told, tmp_path):
    assert told in fault(write(tmp_path, lambda specs: specs["a"].update(change)))


def test_metadata_that_is_none(tmp_path):
    write(tmp_path, lambda specs: specs["a"].update(metadata="x"))
    (tmp_path / "target.a" / ".zarray").unlink()
    says(fault(tmp_path), "its metadata is 'x'")


def test_the_writer(tmp_path):
    write_t5x(tmp_path, Held({"x.a": A, "x.b": B, "zero": np.zeros((3, 2))}), 12)
    found = stored(tmp_path / "checkpoint_12")
    assert {n: a.tolist() for n, a in found.items()} == {
        "x.a": A.tolist(), "x.b": B.tolist(), "zero": np.zeros((3, 2)).tolist()
    }  # fmt: skip
    assert open_orbax(tmp_path / "checkpoint_12").read("optimizer.target.zero").sum() == 0
    assert not list(tmp_path.glob(".*"))
    tree = msgpack_restore((tmp_path / "checkpoint_12" / "checkpoint").read_bytes())
    assert (tree["version"], tree["optimizer"]["state"]["step"]) == (3, 12)
    assert tree["optimizer"]["target"]["x"]["b"]["metadata"]["shape"] == [2, 3]


def test_a_checkpoint_of_mesh_tensorflow(tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-1000"\n')
    (tmp_path / "model.ckpt-1000.index").write_bytes(bytes(range(100)))
    for file in tmp_path.iterdir():
        with pytest.raises(UserError, match="TensorFlow, as Mesh TensorFlow left"):
            container_of(file)
    with pytest.raises(UserError, match="TensorFlow, as Mesh TensorFlow left"):
        open_content(tmp_path)
