"""Damaged files of every container: one clear error or the same arrays, and no wasted memory."""

import json
import struct
import tracemalloc
import zipfile
from contextlib import contextmanager

import ml_dtypes
import numpy as np
import pytest
from edited_trees import edited
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.core.tensors import Held
from convert.formats.msgpack import open_msgpack, write_msgpack
from convert.formats.npz import open_npz
from convert.formats.orbax import open_orbax
from convert.formats.orbax_writer import write_orbax
from convert.formats.safetensors import open_safetensors, write_safetensors, write_sharded
from convert.formats.shards import notes_of
from convert.formats.torch_file.reader import open_torch_file, open_torch_pickle
from convert.formats.torch_file.writer import write_torch_pickle
from transformer_spec import UserError

torch = pytest.importorskip("torch")

INDEX = "model.safetensors.index.json"
EXAMPLES = settings(max_examples=150, deadline=None, database=None)
SMALL = 3 << 20


def arrays():
    """A few arrays that differ from each other in every way; all of NumPy's own types."""
    return {
        "a.w": np.arange(6, dtype=np.float32).reshape(2, 3), "a.b": np.arange(3, dtype=np.int16),
        "c.empty": np.zeros((0, 2)), "c.scalar": np.array(1.5, np.float16),
    }  # fmt: skip


def write_old_torch(path, tensors):
    state = {name: torch.from_numpy(array) for name, array in tensors.arrays.items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def write_npz(path, tensors):
    with open(path, "wb") as file:
        np.savez(file, **tensors.arrays)


def write_packed_npz(path, tensors):
    with open(path, "wb") as file:
        np.savez_compressed(file, **tensors.arrays)


WRITERS = {
    "safetensors": (write_safetensors, open_safetensors),
    "msgpack": (write_msgpack, open_msgpack),
    "npz": (write_npz, open_npz),
    "packed npz": (write_packed_npz, open_npz),
    "torch": (write_torch_pickle, open_torch_pickle),
    "old torch": (write_old_torch, open_torch_pickle),
}
CHECKED = ("npz", "packed npz", "torch")
CONTAINERS = pytest.mark.parametrize("container", list(WRITERS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def originals(folder):
    """Each container's bytes of the same arrays."""
    content = {}
    for container, (write, _) in WRITERS.items():
        write(folder / container, Held(arrays()))
        content[container] = (folder / container).read_bytes()
    return content


@contextmanager
def bounded_memory(size):
    """What Python and NumPy allocate inside is of the order of ``size`` bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 60 * size + SMALL
    finally:
        tracemalloc.stop()


def read(path, open_file):
    """Every array, or None where a UserError says that there is none to be had."""
    try:
        tensors = open_file(path)
        found = tensors.read_all()
    except UserError as error:
        assert path.name in str(error) or str(path.parent) in str(error)
        assert len(str(error)) < 2000
        return None
    for name, array in found.items():
        assert (array.shape, array.dtype) == tensors[name]
    return found


def read_changed(folder, container, content):
    path = folder / "changed"
    path.write_bytes(content)
    with bounded_memory(len(content)):
        return read(path, WRITERS[container][1])


def same(found, names=True, of=None):
    """Whether arrays are ``of``, or the originals; without ``names`` names may be others."""
    kinds = [
        sorted((name if names else "", a.shape, a.dtype.str, a.tobytes()) for name, a in x.items())
        for x in (found, arrays() if of is None else of)
    ]
    return kinds[0] == kinds[1]


@CONTAINERS
def test_what_is_whole_is_read(folder, originals, container):
    assert same(read_changed(folder, container, originals[container]))


@CONTAINERS
def test_every_truncation_is_noticed(folder, originals, container):
    content = originals[container]
    for size in range(len(content)):
        path = folder / "short"
        path.write_bytes(content[:size])
        assert read(path, WRITERS[container][1]) is None, size


@CONTAINERS
def test_every_byte_changed(folder, originals, container):
    """With checksums inside, nothing but the originals; without, arrays as announced."""
    content = originals[container]
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        path = folder / "flipped"
        path.write_bytes(changed)
        found = read(path, WRITERS[container][1])
        if container in CHECKED and found is not None:
            assert same(found, names=container == "torch"), at


@st.composite
def edits(draw, size):
    """Places in a file, and what to put there instead of how many bytes."""
    place = st.integers(0, size)
    content = st.binary(max_size=9) | st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f" * 4])
    return draw(st.lists(st.tuples(place, st.integers(0, 9), content), min_size=1, max_size=4))


@CONTAINERS
@EXAMPLES
@given(data=st.data())
def test_several_changes(folder, originals, container, data):
    content = originals[container]
    for place, count, new in data.draw(edits(len(content))):
        content = content[:place] + new + content[place + count :]
    found = read_changed(folder, container, content)
    if container in CHECKED and found is not None:
        assert same(found, names=container == "torch")


@EXAMPLES
@given(content=st.binary(max_size=300))
def test_any_pickle(folder, originals, content):
    """Whatever program is in the archive, and after the beginning of the old form."""
    path = folder / "pickle.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02" + content + b".")
    old = originals["old torch"]
    start = old[: old.index(b"}q", old.index(b"type_sizes") + 60)]
    (folder / "old.pt").write_bytes(start + content + b".")
    for name in ("pickle.pt", "old.pt"):
        with bounded_memory(len(content) + len(start)):
            try:
                open_torch_file(folder / name)
            except UserError as error:
                assert name in str(error)


OPERATIONS = st.sampled_from(
    [bytes([code]) for code in b"(.0127FGIJKLMNQRSTUVXabcdeghijloqrstu})]\x80\x85\x86\x87\x88\x89"]
    + [b"\x81", b"\x8a\x01\x05", b"\x8c\x01a", b"\x8f", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94"]
    + [b"K\x01", b"X\x01\x00\x00\x00a", b"h\x00", b"h\x01", b"q\x00", b"q\x01"]
    + [b"cargparse\nNamespace\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"]
    + [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nSize\n", b"cnumpy\ndtype\n"]
    + [b"cnumpy.core.multiarray\n_reconstruct\n", b"cbuiltins\nset\n", b"c_codecs\nencode\n"]
)


@settings(EXAMPLES, max_examples=600)
@given(operations=st.lists(OPERATIONS, max_size=40))
def test_any_sequence_of_operations(folder, operations):
    path = folder / "operations.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02" + b"".join(operations) + b".")
    with bounded_memory(1000):
        try:
            open_torch_file(path)
        except UserError as error:
            assert "operations.pt" in str(error)


@EXAMPLES
@given(data=st.data())
def test_headers_of_safetensors(folder, originals, data):
    content = originals["safetensors"]
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(data.draw(edited(header))).encode()
    read_changed(folder, "safetensors", struct.pack("<Q", len(text)) + text + content[8 + length :])


@EXAMPLES
@given(data=st.data())
def test_indices_of_shards(tmp_path_factory, data):
    place = tmp_path_factory.mktemp("shards")
    write_sharded(place, Held(arrays()), shard_size=1)
    content = json.loads((place / INDEX).read_text())
    (place / INDEX).write_text(json.dumps(data.draw(edited(content))))
    found = read(place / INDEX, open_safetensors)
    if found is not None and not same(found):  # what a whole shard has may be left out, and is said
        assert notes_of(open_safetensors(place / INDEX))
        assert same(arrays() | found) and found.keys() <= arrays().keys()


@pytest.fixture(scope="module")
def orbax(folder):
    pytest.importorskip("orbax.checkpoint")
    held = {name: array for name, array in arrays().items() if array.size}
    held["b"] = np.ones(2, ml_dtypes.bfloat16)
    write_orbax(folder / "orbax", Held(held))
    return folder / "orbax", json.loads((folder / "orbax" / "_METADATA").read_text()), held


@settings(EXAMPLES, max_examples=60)
@given(data=st.data())
def test_metadata_of_orbax(orbax, data):
    path, content, held = orbax
    (path / "_METADATA").write_text(json.dumps(data.draw(edited(content))))
    with bounded_memory(1000):
        found = read(path, open_orbax) or {}
    # What is not listed is not read, nor is what is listed as a value that is no array.
    assert same(found, of={name: held[name] for name in found})


def test_many_arrays_are_read_where_they_are(folder):
    """Of a larger file the memory is that of one array, whatever the container."""
    many = {f"x{i}": np.full(50_000, i, np.float32) for i in range(40)}
    for container, (write, open_file) in WRITERS.items():
        write(folder / "many", Held(many))
        tracemalloc.start()
        tensors = open_file(folder / "many")
        for name, array in many.items():
            assert tensors.read(name)[-1] == array[-1]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * 200_000 + SMALL // 2, container
