"""Arrays written to known places of a file, several at once, without filling the memory."""

import os
import threading
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from convert.core.parallel import in_threads
from convert.core.tensors import Tensors

STEP = 64 * 2**20


def place_arrays(file: BinaryIO, tensors: Tensors, places: Mapping[str, int]) -> None:
    """Write the bytes of every array in row order to its place, which is a position in the file.

    Arrays are prepared by this thread and read by several ones; everything written to the file
    before is flushed first.
    """
    file.flush()
    output = _Output(file)

    def work(name: str) -> None:
        at = places[name]
        for piece in tensors.pieces(name):
            output.write(piece, at)
            at += piece.nbytes

    in_threads({name: tensors[name].size for name in places}, work, tensors.prepare)


class _Output:
    """A file that threads write to.

    Bytes go to the disk while more are written, and the system is told to forget them: there is no
    long wait at the end, and nothing else is pushed out of memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.lock = threading.Lock()
        self.waiting = 0

    def write(self, piece: np.ndarray, at: int) -> None:
        rest = piece.data
        while rest:
            count = self._write_some(rest, at)
            rest, at = rest[count:], at + count
        with self.lock:
            self.waiting += piece.nbytes
            drain = self.waiting >= STEP and hasattr(os, "posix_fadvise")
            self.waiting = 0 if drain else self.waiting
        if drain:
            os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _write_some(self, content: memoryview, at: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self.file.fileno(), content, at)
        with self.lock:
            self.file.seek(at)
            count = self.file.write(content)
            self.file.flush()
            return count
