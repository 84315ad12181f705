"""A model with its config and vocabularies as a folder that is loaded, converted and translates."""

from pathlib import Path
from typing import Any

from convert.checkpoints.checkpoint import FORMATS
from convert.checkpoints.folders import CONFIG, MODEL
from convert.core.tensors import Tensors
from convert.formats.safetensors import write_safetensors
from training_recipe.files.writing import folder_aside, make_parent
from training_recipe.text.model_vocabularies import load_vocabularies
from training_recipe.text.vocabulary import Vocabulary, load_vocabulary
from transformer_spec import TransformerConfig, UserError

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
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already; name a folder that does not")
    pair = _pair(vocabulary)
    make_parent(folder)
    with folder_aside(folder) as aside:
        config.save(aside / CONFIG)
        write_safetensors(aside / MODEL, tensors, FORMATS[twin])
        if pair is not None:
            (aside / VOCABULARY).mkdir()
            pair[0].save(aside / VOCABULARY, "source")
            pair[1].save(aside / VOCABULARY, "target")
            load_vocabularies(aside / VOCABULARY, config)


def require_twin(model: Any, twin: type) -> None:
    """Raise a UserError where a model is not of a twin's class."""
    if not isinstance(model, twin):
        package, given = twin.__module__.partition(".")[0], type(model)
        raise UserError(
            f"{package}.save takes a {package}.Transformer, not a {given.__module__}."
            f"{given.__qualname__}; the other twin has a save of its own"
        )


def _pair(vocabulary: Vocabularies) -> tuple[Vocabulary, Vocabulary] | None:
    if vocabulary is None or isinstance(vocabulary, tuple):
        return vocabulary
    place = Path(vocabulary)
    place = place / VOCABULARY if (place / VOCABULARY).is_dir() else place
    if not (place / "source.json").is_file():
        raise UserError(
            f"vocabulary {vocabulary} holds none: give a run, a converted folder, or its "
            f"{VOCABULARY}/ with source.json and target.json"
        )
    return load_vocabulary(place, "source"), load_vocabulary(place, "target")
