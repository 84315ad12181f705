"""{name: NumPy array} <-> model, line for line the twin of flax_transformer/weights.py."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convert.checkpoints import load_weights_of
from torch_transformer.model import Transformer
from transformer_spec import check_arrays, weight_shapes

HEADING = "these weights do not fit the PyTorch model"


def tensors(model: Transformer) -> dict[str, Tensor]:
    """Every stored weight by its canonical name, in the inventory's order."""
    held = model.state_dict(keep_vars=True)
    return {name: held[name] for name in weight_shapes(model.config)}


def weights(model: Transformer) -> dict[str, np.ndarray]:
    """{canonical name: NumPy array} of every stored weight; tied weights appear once."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors(model).items()}


def load_weights(model: Transformer, weights: Mapping[str, np.ndarray]) -> None:
    """Overwrite every weight; faults in names, shapes or dtypes are one UserError."""
    held = tensors(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in held.items()}
    check_arrays(weights, shapes, numpy_dtype(next(iter(held.values())).dtype), HEADING)
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(torch.from_numpy(np.array(weights[name], order="C")))


def load(folder: str | Path) -> Transformer:
    """The model of a run, a checkpoint or a converted folder, whichever framework wrote it."""
    config, canonical = load_weights_of(Path(folder))
    model = Transformer(config, dtype=getattr(torch, str(next(iter(canonical.values())).dtype)))
    load_weights(model, canonical)
    return model


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """The NumPy type of a PyTorch number format."""
    return torch.empty(0, dtype=dtype).numpy().dtype
