"""The container of ``torch.save``: a zip file with a pickle and one entry per storage.

Reading needs no torch: the pickle goes through ``restricted_pickle``. Writing needs torch.
"""

import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from convert.formats.atomic import written_aside
from convert.formats.restricted_pickle import Storage, StoredTensor, load_restricted
from convert.tensors import Header, Tensors
from transformer_spec import Faults, UserError

LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class TorchPickle(Tensors):
    """The state dict of one file, each tensor read when asked for."""

    def __init__(self, path: Path, key: str | None = None) -> None:
        self.path = path
        self.archive = _open_zip(path)
        self.entries = _entries(path, self.archive)
        self.stored = _state_dict(path, self._load_pickle(), key)
        self._check_storages()
        headers = {
            name: Header(tensor.shape, tensor.storage.dtype) for name, tensor in self.stored.items()
        }
        super().__init__(str(path), headers)
        self.last: tuple[Storage, np.ndarray] | None = None

    def _load_pickle(self) -> Any:
        if "byteorder" in self.entries and self._entry("byteorder") != b"little":
            raise UserError(f"{self.path} was written on a big-endian machine; re-save it")
        with self.archive.open(self.entries["data.pkl"]) as file:
            return load_restricted(file, str(self.path))

    def _entry(self, name: str) -> bytes:
        try:
            return self.archive.read(self.entries[name])
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path}: cannot read {name}: {error}") from error

    def _check_storages(self) -> None:
        """Every tensor lies inside its storage and every storage inside its entry."""
        faults = Faults()
        for name, tensor in self.stored.items():
            entry = self.entries.get(f"data/{tensor.storage.key}")
            needed = tensor.storage.count * tensor.storage.dtype.itemsize
            if entry is None or entry.file_size < needed:
                faults.add(f"the numbers of {name!r} are missing or cut off")
            elif _last_element(tensor) >= max(tensor.storage.count, 1):
                faults.add(f"{name!r} reaches beyond its storage of {tensor.storage.count}")
        faults.raise_if_any(f"cannot read {self.path}")

    def read(self, name: str) -> np.ndarray:
        tensor = self.stored[name]
        numbers = self._storage(tensor.storage)
        strides = [stride * numbers.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(
            numbers[tensor.offset :], tensor.shape, strides, writeable=False
        )
        return np.array(view, order="C")

    def _storage(self, storage: Storage) -> np.ndarray:
        """The numbers of a storage; the last one is kept, since tensors may share it."""
        if self.last is None or self.last[0] != storage:
            content = self._entry(f"data/{storage.key}")
            self.last = storage, np.frombuffer(content, storage.dtype, storage.count)
        return self.last[1]


def _last_element(tensor: StoredTensor) -> int:
    if 0 in tensor.shape:
        return 0
    steps = ((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    return tensor.offset + sum(steps)


def open_torch_pickle(path: Path, key: str | None = None) -> Tensors:
    """The tensors of a .pt, .pth or .bin file; ``key`` picks one dict of a nested checkpoint."""
    return TorchPickle(path, key)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        with open(path, "rb") as file:
            start = file.read(len(LEGACY_START))
        if start == LEGACY_START:
            raise UserError(
                f"{path} has the format from before PyTorch 1.6; load and save it again with torch"
            )
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is truncated or no file of torch.save: {error}") from error


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Entry name without the archive's own folder -> entry; torch never compresses one."""
    entries = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{path}: {info.filename!r} is compressed, which torch.save never does")
        entries["/".join(PurePosixPath(info.filename).parts[1:])] = info
    if "data.pkl" not in entries:
        raise UserError(f"{path} is a zip file without data.pkl: not written by torch.save")
    return entries


def _state_dict(path: Path, content: Any, key: str | None) -> dict[str, StoredTensor]:
    """The dict of tensors at the top, or under ``key``."""
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{path} has no key {key!r}; {_describe(content)}")
        content = content[key]
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no dict of tensors; {_describe(content)}")
    others = [str(name) for name, value in content.items() if not isinstance(value, StoredTensor)]
    if others:
        raise UserError(
            f"{path} holds more than tensors: {', '.join(others)}; {_describe(content)}"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _describe(content: Any) -> str:
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    nested = [str(name) for name, value in content.items() if isinstance(value, dict)]
    return f"choose one of its dicts with --key: {', '.join(nested) or 'it has none'}"


def write_torch_pickle(path: Path, tensors: Tensors) -> None:
    """Write a state dict with ``torch.save``."""
    try:
        import torch
    except ImportError as error:
        raise UserError("writing a .pt file needs twinformer[torch]; safetensors do not") from error
    state = {name: _to_torch(torch, tensors.read(name)) for name in tensors}
    with written_aside(path) as aside, open(aside, "wb") as file:
        torch.save(state, file)


def _to_torch(torch: Any, array: np.ndarray) -> Any:
    array = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
