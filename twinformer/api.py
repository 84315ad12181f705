"""The calls of the library; what they do is done by the packages below."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from twinformer.frameworks import choose, training_backend, twin

if TYPE_CHECKING:
    from twinformer.training.loop import Trained

Backend = Literal["jax", "torch"]


def load(folder: str | os.PathLike[str], *, backend: Backend | None = None) -> Any:
    """The model of a run, a checkpoint or a converted folder, whichever framework wrote it.

    It is a ``torch_transformer.Transformer`` or a ``flax_transformer.Transformer``, deterministic
    until told to ``train()``; ``model(source, target)`` takes token ids (B, S) and (B, T) and gives
    logits (B, T, V). ``backend`` None is the framework that wrote the run, else one that is
    installed. Raises UserError where there is no model or the framework is not installed.
    """
    name, _ = choose(backend, Path(folder))
    return twin(name).load(folder)


def train(**settings: Any) -> Trained:
    """Train a model, or go on with a run: what ``twinformer train`` does with the same settings.

    The settings are its flags with underscores, as Python values: ``data="pairs.csv"``,
    ``columns=("Q", "A")``, ``backend="jax"``, ``steps=2000``, ``recipe=...``, ``resume=...``; what
    is left out is its default. Progress is shown as the command shows it. Returns the run's folder,
    the steps done and the scores of its final test. Ctrl-C saves and raises KeyboardInterrupt.
    Raises UserError that names every setting at fault.
    """
    from training_recipe.options.request import request_of
    from twinformer.training.loop import train as run_training
    from twinformer.training.starting import backend_name

    request = request_of({name: _plain(value) for name, value in settings.items()})
    name = backend_name(request)
    trained = run_training(request, name, training_backend(name))
    if trained.status:
        raise KeyboardInterrupt(f"saved in {trained.folder}; go on with resume={trained.folder!s}")
    return trained


def _plain(value: Any) -> Any:
    """A setting as recipes hold it: paths are text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, list) else value
