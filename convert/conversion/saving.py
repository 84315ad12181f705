"""A model with its config and vocabularies as a folder that is loaded, converted and translates."""

import shutil
from pathlib import Path
from typing import Any

from convert.checkpoints.checkpoint import FORMATS
from convert.checkpoints.folders.config_files import CONFIG
from convert.checkpoints.folders.file_names import KEPT_ASIDE, MODEL
from convert.checkpoints.folders.location import locate
from convert.checkpoints.layouts import TWIN_RULES
from convert.conversion.side_files.beside import VOCABULARY
from convert.conversion.side_files.made_files import carry
from convert.core.pipeline import check_source
from convert.core.tensors import Tensors
from convert.formats.safetensors import write_safetensors
from training_recipe.files.writing import folder_aside, make_parent
from training_recipe.text.model_vocabularies import check_fit, load_vocabularies
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import Faults, TransformerConfig, UserError, weight_shapes
from transformer_spec.paths import as_path

Vocabularies = tuple[Vocabulary, Vocabulary] | str | Path | None


def save_model(
    folder: str | Path,
    config: TransformerConfig,
    tensors: Tensors,
    twin: str,
    vocabulary: Vocabularies = None,
    like: str | Path | None = None,
) -> list[str]:
    """Write ``folder``, which must not exist yet, whole or not at all.

    ``tensors`` have the names of the ``twin``, "torch" or "flax". ``vocabulary`` is a (source,
    target) pair or a folder that holds one: a run, a converted folder, or its ``vocabulary/``.
    Vocabularies of another model are a UserError. ``like`` is a folder of ours of which everything
    beside the weights goes along; notes say what does not.
    """
    folder = as_path(folder, "folder")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already; name a folder that does not")
    check_whole(config, tensors, twin)
    pair = _pair(vocabulary, config)
    home = None if like is None else _home(as_path(like, "like"), config)
    make_parent(folder)
    with folder_aside(folder) as aside:
        config.save(aside / CONFIG)
        write_safetensors(aside / MODEL, tensors, FORMATS[twin])
        notes = carry(home, aside, config) if home is not None else []
        if home is not None and (home / KEPT_ASIDE).is_file():
            shutil.copyfile(home / KEPT_ASIDE, aside / KEPT_ASIDE)
        if pair is not None:
            shutil.rmtree(aside / VOCABULARY, ignore_errors=True)
            (aside / VOCABULARY).mkdir()
            pair[0].save(aside / VOCABULARY, "source")
            pair[1].save(aside / VOCABULARY, "target")
    return notes


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


def _home(like: Path, config: TransformerConfig) -> Path:
    """The folder whose config.json is ours and has weights of the same shapes."""
    home = locate(like).home
    if home is None:
        raise UserError(
            f"like {like} is no run and no converted folder: python -m convert {like} NEW --to "
            "torch makes one, to load the model from"
        )
    theirs, ours = weight_shapes(TransformerConfig.load(home / CONFIG)), weight_shapes(config)
    if theirs != ours:
        other = sorted({*theirs.items()} ^ {*ours.items()})[0][0]
        raise UserError(f"like {like} is of another model: {other} is not the same there")
    return home


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
