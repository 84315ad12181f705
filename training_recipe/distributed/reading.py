"""A state that lies on several processes, read by the first one, in the order that it chooses.

Reading an array is collective: before the first process reads one it tells the others which, and
these read it too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np

from training_recipe.arrays import Parts, headers_of
from training_recipe.backend import Checkpoint
from training_recipe.distributed.processes import Processes


@contextlib.contextmanager
def announced(checkpoint: Checkpoint, processes: Processes) -> Iterator[Checkpoint]:
    """In the first process: a block with the state; the others must be in ``answer`` until it ends.

    One thread alone may read, as every read is announced.
    """

    def parts_of(field: str, arrays: Mapping[str, np.ndarray]) -> Parts:
        def read(name: str) -> np.ndarray:
            processes.broadcast((field, name))
            return arrays[name]

        return Parts(headers_of(arrays), read)

    try:
        yield checkpoint.changed(parts_of)
    finally:
        processes.broadcast(None)


def answer(checkpoint: Checkpoint, processes: Processes) -> None:
    """In the others: read what the first process reads, until it has all that it wants."""
    while (asked := processes.broadcast(None)) is not None:
        field, name = asked
        getattr(checkpoint, field)[name]
