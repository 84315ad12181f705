"""Arrays of every type that checkpoints use, and what it means to read them back."""

import ml_dtypes
import numpy as np


def various():
    """Every type that checkpoints use, with shapes () and (0, 3) and bits that are no number."""
    return {
        "b.kernel": np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3),
        "a.scale": np.array([np.nan, -0.0, np.inf], np.float64),
        "c.d.e": np.arange(5, dtype=np.float16),
        "c.d.empty": np.zeros((0, 3), np.float32),
        "c.scalar": np.array(3, np.float32),
        "c.count": np.array([2**40], np.int64),
        "ü": np.arange(6, dtype=np.float32).reshape(3, 2).T,
    }


def assert_holds(tensors, arrays):
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        assert tensors[name] == (array.shape, array.dtype)
        read = tensors.read(name)
        assert (read.shape, read.dtype) == (array.shape, array.dtype)
        assert read.tobytes() == array.tobytes()
