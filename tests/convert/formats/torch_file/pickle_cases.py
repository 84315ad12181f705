"""Pickles as torch.save lays them out, with any program inside."""

import collections
import io
import pickle
import zipfile

import pytest

torch = pytest.importorskip("torch", reason="the pickles name torch's functions")


class Calls:
    """Something that pickles as a call of any function, with a state to set on what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Storage:
    """Something that pickles as a reference to a storage."""

    def __init__(self, *pid):
        self.pid = pid


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None


def pickled(content, protocol=2):
    file = io.BytesIO()
    Pickler(file, protocol).dump(content)
    return file.getvalue()


def write_zip(path, content, compression=zipfile.ZIP_STORED, **entries):
    """A zip file laid out as torch.save does it; an entry ``_0`` is the storage 0."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("m/data.pkl", content)
        for name, data in entries.items():
            archive.writestr(f"m/data/{name.removeprefix('_')}", data)
    return path


def tensor_pickle(offset=0, shape=(2,), strides=(1,), count=2):
    """The pickle of {"x": tensor}, with whatever header is asked for."""
    storage = Storage("storage", torch.FloatStorage, "0", "cpu", count)
    rebuild = torch._utils._rebuild_tensor_v2
    tensor = Calls(rebuild, storage, offset, shape, strides, False, collections.OrderedDict())
    return pickled({"x": tensor})
