"""A process that frees memory and asks for as much again gets the same pages."""

import sys

import pytest
from translate_cases import python

FAULTS = """
import resource
from training_recipe.memory_reuse import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    bytearray(2**27)
before = faults()
for _ in range(4):
    bytearray(2**27)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_pages_are_used_again(tmp_path):
    fresh, kept = (int(python(FAULTS.format(keep=keep), tmp_path).stdout) for keep in (0, 1))
    assert kept < 1000 < fresh


def test_another_c_library_is_left_alone(monkeypatch):
    from training_recipe import memory_reuse

    monkeypatch.setattr(memory_reuse.ctypes, "CDLL", lambda name: object())
    assert memory_reuse.keep_freed_memory() is False
