"""A model and its folder on disk, line for line the twin of flax_transformer/folder.py."""

from pathlib import Path

from convert.conversion.opening import open_model
from convert.conversion.saving import Vocabularies, require_twin, save_model
from convert.core.tensors import Held
from torch_transformer.model import Transformer
from torch_transformer.weights import arrays, set_weights, torch_dtype
from transformer_spec import check_arrays, weight_shapes


def save(
    model: Transformer,
    folder: str | Path,
    vocabulary: Vocabularies = None,
    like: str | Path | None = None,
) -> list[str]:
    """Write what ``load``, conversion and, with its vocabularies, translation read.

    ``vocabulary`` is a (source, target) pair of vocabularies or a folder that holds one. ``like``
    is the run or converted folder that the model was loaded from: all that lies beside its weights
    goes along, so that the way back to another library is the way from there. A folder that exists
    is a UserError, and what cannot be written whole is not there. Returns what of ``like`` did not
    go along.
    """
    require_twin(model, Transformer)
    tensors = Held(arrays(model))
    return save_model(folder, model.config, tensors, "torch", vocabulary, like)


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
