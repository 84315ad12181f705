"""What a checkpoint has beside its weights, and a comparison does not read."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("transformers")

from safetensors.numpy import load_file, save_file  # noqa: E402
from t5_cases import build, saved_t5  # noqa: E402

from convert.conversion.opening import open_model  # noqa: E402
from parity.sides.opening import open_side  # noqa: E402
from transformer_spec import UserError  # noqa: E402

BIAS = "encoder.block.1.layer.0.layer_norm.bias"


def folder_with(path: Path, value: float) -> Path:
    """A T5 as files of 2020 are, with a bias that its norms do not have."""
    saved_t5(build("t5", False), path)
    arrays = load_file(path / "model.safetensors")
    arrays[BIAS] = np.full(13, value, np.float32)
    save_file(arrays, path / "model.safetensors", {"format": "pt"})
    return path


def test_a_tensor_that_becomes_nothing_is_compared(tmp_path):
    folder = folder_with(tmp_path, 0.5)
    for used in (lambda: open_model(folder).tensors(), lambda: open_side(str(folder))):
        with pytest.raises(UserError, match=f"{BIAS}: the norms of these models have no bias"):
            used()


def test_zeros_are_what_it_may_be(tmp_path):
    assert open_side(str(folder_with(tmp_path, 0.0))).config.norm == "rms"
