"""A model and its folder on disk, line for line the twin of torch_transformer/folder.py."""

from pathlib import Path

from convert.checkpoints import open_weights_of
from flax_transformer.model import Transformer
from flax_transformer.weights import set_weights
from transformer_spec import check_arrays, to_flax, weight_shapes


def load(folder: str | Path) -> Transformer:
    """The model of a run, a checkpoint or a converted folder, whichever framework wrote it."""
    config, canonical = open_weights_of(Path(folder))
    dtype = next(iter(canonical.values())).dtype
    check_arrays(canonical, weight_shapes(config), dtype, f"{folder} does not fit its config")
    model = Transformer.skeleton(config, dtype)
    set_weights(model, lambda name: to_flax(name, canonical.read(name))[1])
    return model
