"""A model and its folder on disk, line for line the twin of flax_transformer/folder.py."""

from pathlib import Path

from convert.checkpoints.saving import Vocabularies, require_twin, save_model
from convert.conversion.opening import open_model
from convert.core.tensors import Held
from torch_transformer.model import Transformer
from torch_transformer.weights import arrays, set_weights, torch_dtype
from transformer_spec import check_arrays, weight_shapes


def save(model: Transformer, folder: str | Path, vocabulary: Vocabularies = None) -> None:
    """Write what ``load``, conversion and, with its vocabularies, translation read.

    ``vocabulary`` is a (source, target) pair of vocabularies or a folder that holds one. A folder
    that exists is a UserError, and what cannot be written whole is not there.
    """
    require_twin(model, Transformer)
    save_model(folder, model.config, Held(arrays(model)), "torch", vocabulary)


def load(folder: str | Path, verify: bool = True) -> Transformer:
    """The model of a run, a checkpoint or a converted folder, whichever framework wrote it.

    Another library's folder, or OWNER/NAME of the Hub, is read on the fly. Weights that are not
    what was written there are a UserError, unless told not to ``verify``. Where number formats are
    mixed, the model has the one that holds them all.
    """
    opened = open_model(folder, verify=verify)
    config, canonical = opened.config, opened.of_one_format()
    dtype = next(iter(canonical.values())).dtype
    check_arrays(canonical, weight_shapes(config), dtype, f"{folder} does not fit its config")
    model = Transformer.skeleton(config, torch_dtype(dtype))
    set_weights(model, canonical.read)
    return model
