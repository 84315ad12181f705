"""Finding the weights in a run folder, a checkpoint folder or a converted folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.families.twinformer import is_flax
from convert.formats.orbax import is_orbax, open_orbax
from convert.formats.safetensors import open_safetensors
from convert.formats.torch_pickle import open_torch_pickle
from convert.layouts import BARE_ORBAX, COUNT, FLAX, ORBAX, TORCH, Layout
from convert.tensors import Joined, Subset, Tensors
from training_recipe.run_folder import RunFolder
from transformer_spec import UserError

MODEL = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
MODEL_PICKLE = "model.pt"
OPTIMIZER = "optimizer.safetensors"
KEPT_ASIDE = "kept_aside.safetensors"
ORBAX_FOLDER = "orbax"
MODELS = (MODEL, MODEL_INDEX, MODEL_PICKLE, ORBAX_FOLDER)
PICKLES = (".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Located:
    """Where the weights are, and the folder that holds config.json, or None."""

    weights: Path
    home: Path | None
    kind: str


def locate(path: Path) -> Located:
    """Tell run, checkpoint, converted and Orbax folders and weight files apart.

    A run is used by its best checkpoint, or by its newest where none is marked.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_file():
        return Located(path, None, "weight file")
    if (path / "checkpoints").is_dir():
        return Located(RunFolder(path).best_or_newest(), path, "run")
    above = path.resolve().parent
    if (path / "config.json").is_file():
        return Located(path, path, "model folder")
    if above.name == "checkpoints" and (above.parent / "config.json").is_file():
        return Located(path, above.parent, "checkpoint")
    return Located(path, None, "weight folder")


@dataclass(frozen=True)
class Content:
    """The tensors of one folder or file under its own names, and the optimizer's step count."""

    tensors: Tensors
    layout: Layout
    count: int | None
    container: str


def open_content(path: Path, key: str | None = None) -> Content:
    """Open whatever holds weights, headers only; ``key`` picks a dict of a nested .pt file."""
    if path.is_dir():
        return _open_orbax(path) if is_orbax(path) else _open_folder(path, key)
    tensors, container = _open_file(path, key)
    return Content(tensors, _layout_of(tensors), None, container)


def _open_folder(path: Path, key: str | None) -> Content:
    present = [name for name in MODELS if (path / name).exists()]
    if len(present) != 1:
        found = f"it has {' and '.join(present)}" if present else "it has none of them"
        raise UserError(f"{path} should hold one of {', '.join(MODELS)}; {found}")
    model = path / present[0]
    if present[0] == ORBAX_FOLDER:
        content = _open_orbax(model)
    else:
        tensors, container = _open_file(model, key)
        content = Content(tensors, _layout_of(tensors), None, container)
    return _with_side_files(path, content)


def _open_file(path: Path, key: str | None) -> tuple[Tensors, str]:
    if path.suffix in PICKLES:
        return open_torch_pickle(path, key), "pt"
    if path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json"):
        return open_safetensors(path), "safetensors"
    raise UserError(
        f"{path} is no weight file; known: .safetensors, .safetensors.index.json, "
        f"{', '.join(PICKLES)}, and folders"
    )


def _layout_of(names: Tensors) -> Layout:
    return FLAX if is_flax(names) else TORCH


def _with_side_files(path: Path, content: Content) -> Content:
    """The optimizer's moments and what was kept aside belong to the folder's tensors."""
    parts, count = [content.tensors], content.count
    if (path / OPTIMIZER).exists():
        parts.append(open_safetensors(path / OPTIMIZER))
        count = _count(parts[-1])
    if (path / KEPT_ASIDE).exists():
        parts.append(open_safetensors(path / KEPT_ASIDE))
    tensors = Joined(str(path), parts) if len(parts) > 1 else content.tensors
    return Content(tensors, content.layout, count, content.container)


def _count(tensors: Tensors) -> int:
    text = tensors.metadata.get(COUNT, "")
    if not text.isdecimal():
        raise UserError(f"{tensors.label} has no optimizer step count in its metadata")
    return int(text)


def _open_orbax(path: Path) -> Content:
    tensors = open_orbax(path)
    layout = ORBAX if any(name.startswith(ORBAX.weights) for name in tensors) else BARE_ORBAX
    count = None
    if COUNT in tensors and tensors[COUNT].shape == ():
        count = _integer(tensors.read(COUNT), path)
        tensors = Subset(tensors, [name for name in tensors if name != COUNT])
    elif layout.has_moments(tensors):
        raise UserError(f"{path} has optimizer moments but no step count")
    return Content(tensors, layout, count, "orbax")


def _integer(array: np.ndarray, path: Path) -> int:
    if array.dtype.kind not in "iu" or array < 0:
        raise UserError(f"{path}: the optimizer's step count is {array} ({array.dtype})")
    return int(array)
