"""A model with its config and vocabularies as a folder that is loaded, converted and translates."""

from pathlib import Path
from typing import Any

from convert.checkpoints.checkpoint import FORMATS
from convert.checkpoints.folders.config_files import CONFIG
from convert.checkpoints.folders.file_names import MODEL
from convert.checkpoints.layouts import TWIN_RULES
from convert.core.pipeline import check_source
from convert.core.tensors import Tensors
from convert.formats.safetensors import write_safetensors
from training_recipe.files.writing import folder_aside, make_parent
from training_recipe.text.model_vocabularies import check_fit, load_vocabularies
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import Faults, TransformerConfig, UserError, weight_shapes
from transformer_spec.paths import as_path

Vocabularies = tuple[Vocabulary, Vocabulary] | str | Path | None
VOCABULARY = "vocabulary"


def save_model(
    folder: str | Path,
    config: TransformerConfig,
    tensors: Tensors,
    twin: str,
    vocabulary: Vocabularies = None,
) -> None:
    """Write ``folder``, which must not exist yet, whole or not at all.

    ``tensors`` have the names of the ``twin``, "torch" or "flax". ``vocabulary`` is a (source,
    target) pair or a folder that holds one: a run, a converted folder, or its ``vocabulary/``.
    Vocabularies of another model are a UserError.
    """
    folder = as_path(folder, "folder")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already; name a folder that does not")
    check_whole(config, tensors, twin)
    pair = _pair(vocabulary, config)
    make_parent(folder)
    with folder_aside(folder) as aside:
        config.save(aside / CONFIG)
        write_safetensors(aside / MODEL, tensors, FORMATS[twin])
        if pair is not None:
            (aside / VOCABULARY).mkdir()
            pair[0].save(aside / VOCABULARY, "source")
            pair[1].save(aside / VOCABULARY, "target")


def require_twin(model: Any, twin: type) -> None:
    """Raise a UserError where a model is not of a twin's class."""
    if not isinstance(model, twin):
        package, given = twin.__module__.partition(".")[0], type(model)
        raise UserError(
            f"{package}.save takes a {package}.Transformer, not a {given.__module__}."
            f"{given.__qualname__}; the other twin has a save of its own"
        )


def check_whole(config: TransformerConfig, tensors: Tensors, twin: str) -> None:
    """Raise a UserError where ``load`` would not read what is to be saved."""
    faults, rules = Faults(), TWIN_RULES[twin](config, list(tensors))
    dtype = next(iter(tensors.values())).dtype
    check_source(tensors, rules, weight_shapes(config), faults, dtype)
    faults.raise_if_any("the model is not what its config says, in one number format")


def _pair(
    vocabulary: Vocabularies, config: TransformerConfig
) -> tuple[Vocabulary, Vocabulary] | None:
    if vocabulary is None:
        return None
    if isinstance(vocabulary, tuple):
        check_fit(vocabulary, config, "vocabulary")
        return vocabulary
    place = Path(vocabulary)
    place = place / VOCABULARY if (place / VOCABULARY).is_dir() else place
    if not (place / "source.json").is_file():
        raise UserError(
            f"vocabulary {vocabulary} holds none: give a run, a converted folder, or its "
            f"{VOCABULARY}/ with source.json and target.json"
        )
    return load_vocabularies(place, config)
