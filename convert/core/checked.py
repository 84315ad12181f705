"""Tensors that are compared with what was written of them, while they are read."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convert.core.tensors import Joined, Tensors, pieces
from transformer_spec import UserError

LATEST = threading.local()


def hash_of(array: np.ndarray) -> Any:
    """SHA-256 of the bytes of an array in row order."""
    found = hashlib.sha256()
    for piece in pieces(array):
        found.update(piece.data)
    LATEST.known = weakref.ref(array), found
    return found


def known_hash(array: np.ndarray) -> Any:
    """The hash of the very array that this thread hashed last; None of any other."""
    latest, found = getattr(LATEST, "known", (lambda: None, None))
    return found if latest() is array else None


class Checked(Tensors):
    """Other tensors, each compared with its ``hashes`` entry (SHA-256) when it is first read.

    Where one differs, all the others are looked at too, and ``error`` is told how many tensors were
    compared and which differ, by the file that they are in. With ``whole`` a tensor without an
    entry differs. Several threads may read at once.
    """

    def __init__(
        self,
        tensors: Tensors,
        hashes: Mapping[str, str],
        error: Callable[[int, Mapping[str, list[str]]], UserError],
        whole: bool = False,
    ) -> None:
        super().__init__(tensors.label, dict(tensors), tensors.metadata)
        self.tensors = tensors
        self.hashes = hashes
        self.error = error
        self.compared = [name for name in tensors if whole or name in hashes]
        self.waiting = set(self.compared)

    def read(self, name: str) -> np.ndarray:
        array = self.tensors.read(name)
        if name in self.waiting:
            if hash_of(array).hexdigest() != self.hashes.get(name):
                raise self._told(name)
            self.waiting.discard(name)
        return array

    def _told(self, name: str) -> UserError:
        by_file: dict[str, list[str]] = {}
        for other in self.compared:
            if other == name or other in self.waiting and not self._holds(other):
                by_file.setdefault(self._file_of(other), []).append(other)
        return self.error(len(self.compared), by_file)

    def _holds(self, name: str) -> bool:
        try:
            return hash_of(self.tensors.read(name)).hexdigest() == self.hashes.get(name)
        except UserError:
            return False

    def _file_of(self, name: str) -> str:
        joined = self.tensors
        return joined.owners[name].label if isinstance(joined, Joined) else self.label
