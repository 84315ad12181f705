"""A model and its folder on disk, line for line the twin of flax_transformer/folder.py."""

from pathlib import Path

from convert.checkpoints import open_weights_of
from torch_transformer.model import Transformer
from torch_transformer.weights import set_weights, torch_dtype
from transformer_spec import check_arrays, weight_shapes


def load(folder: str | Path) -> Transformer:
    """The model of a run, a checkpoint or a converted folder, whichever framework wrote it."""
    config, canonical = open_weights_of(Path(folder))
    dtype = next(iter(canonical.values())).dtype
    check_arrays(canonical, weight_shapes(config), dtype, f"{folder} does not fit its config")
    model = Transformer.skeleton(config, torch_dtype(dtype))
    set_weights(model, canonical.read)
    return model
