"""Tensors that fail while they are written; the modules of cases beside this file are found."""

import pytest

from convert.core.tensors import Held


class Failing(Held):
    def read(self, name):
        raise OSError(28, "No space left on device")


@pytest.fixture
def on_a_full_disk():
    """Makes tensors whose reading ends as a disk without room does."""
    return Failing
