"""The calls of the library; what they do is done by the packages below."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from training_recipe.options.usual_names import meant
from transformer_spec import Faults, UserError
from transformer_spec.paths import as_path, path_fault
from transformer_spec.strict import is_whole
from twinformer.frameworks import choose, home_of, twin

if TYPE_CHECKING:
    from convert.conversion import Conversion
    from parity.comparison.report import Report
    from twinformer.training.loop import Trained

Backend = Literal["jax", "torch"]


def load(
    folder: str | os.PathLike[str], *, backend: Backend | None = None, verify: bool = True
) -> Any:
    """The model of a run, a checkpoint or a converted folder, whichever framework wrote it.

    Another library's folder, or OWNER/NAME of the Hub, is read on the fly. It is a
    ``torch_transformer.Transformer`` or a ``flax_transformer.Transformer``, deterministic until
    told to ``train()``; ``model(source, target)`` takes token ids (B, S) and (B, T) and gives
    logits (B, T, V). ``backend`` None is the framework that wrote the run, or whose format the
    folder has, if it is installed, else the other. Raises UserError where there is no model or the
    framework is not installed, and, unless told not to ``verify``, where the weights are not what
    was written.
    """
    path = as_path(folder, "folder")
    name, _ = choose(backend, home_of(path) if backend is None else None)
    return twin(name).load(path, verify)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    to: str,
    **options: Any,
) -> Conversion:
    """Convert a checkpoint into a new folder: what ``twinformer convert`` does.

    ``to`` is whose names and layout to write: "flax", "torch", "marian" ... ``options`` are those
    of ``convert.ConversionRequest``: family, names, key, config, fields, map, drop,
    parameter_names, optimizer, adapter, ignore_settings, verify, compare_files, container, dtype,
    shard_size, quantization, dry_run. Returns what was done. Raises UserError, and writes nothing,
    where a setting cannot be expressed or a tensor has no place.
    """
    from convert.conversion import ConversionRequest
    from convert.conversion import convert as run_conversion

    known = {field.name for field in dataclasses.fields(ConversionRequest)}
    _check_names(options, known - {"source", "destination", "to"})
    return run_conversion(ConversionRequest(source, destination, to=to, **options))  # pyright: ignore[reportArgumentType]


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str], **options: Any) -> Report:
    """Whether two models are the same function: what ``twinformer parity A B`` does.

    ``a`` and ``b`` are whatever ``convert`` reads, "hf:FOLDER" or "module:FILE.py:FUNCTION";
    ``options`` are those of ``parity.comparison.settings.Settings``: precisions, gradients,
    explain, longest, ids, text, features, audio, seed, frameworks, devices, max_ram, verify,
    padding. The report has ``same``, ``verdict`` and ``rows``, and ``save_html(path)`` writes it as
    a page for a browser. Needs both frameworks; JAX has 64-bit numbers from then on. Raises
    UserError where the two cannot be compared.
    """
    from parity.comparison.settings import Settings
    from parity.frameworks import both_frameworks

    _check_names(options, {field.name for field in dataclasses.fields(Settings)})
    givens = _side(a, "a"), _side(b, "b")
    with both_frameworks(givens=givens):
        from parity.comparison.comparison import compare as run_comparison
    return run_comparison(*givens, Settings(**options))


def _side(value: object, name: str) -> str:
    """A side of a comparison, which is a path or more than one."""
    from parity.sides.given import side_at_home

    if isinstance(value, str) and path_fault(value) is None:
        return side_at_home(value)
    return str(as_path(value, name))


def _check_names(options: Mapping[str, Any], known: Collection[str]) -> None:
    faults = Faults()
    for name in options.keys() - set(known):
        faults.add(f"there is no option {name!r}{meant(name, known)}")
    faults.raise_if_any("cannot do this")


def train(**settings: Any) -> Trained:
    """Train a model, or go on with a run: what ``twinformer train`` does with the same settings.

    The settings are its flags with underscores, as Python values: ``data="pairs.csv"``,
    ``columns=("Q", "A")``, ``backend="jax"``, ``steps=2000``, ``recipe=...``, ``resume=...``; what
    is left out is its default. Progress is shown as the command shows it. Returns the run's folder,
    the steps done and the scores of its final test. Ctrl-C saves and raises KeyboardInterrupt.
    Where torchrun has started several processes, or ``distributed`` says so, all call it alike and
    train one run together, on devices that stand as ``mesh="data=2,fsdp=8"`` says.
    Raises UserError that names every setting at fault.
    """
    from training_recipe.options.request import as_settings, request_of
    from twinformer.training.joining import train_together

    try:
        request = request_of({name: _plain(value) for name, value in settings.items()})
        trained = train_together(request)
    except UserError as error:
        error.args = (as_settings(str(error)),)
        error.faults = [as_settings(fault) for fault in error.faults]
        raise
    if trained.status:
        raise KeyboardInterrupt(f"saved in {trained.folder}; go on with resume={trained.folder!s}")
    return trained


def _plain(value: Any) -> Any:
    """A setting as recipes hold it: paths and columns are text, NumPy's numbers Python's."""
    if isinstance(value, tuple | list):
        parts = list[Any](value)  # pyright: ignore[reportUnknownArgumentType]
        return tuple(str(part) if is_whole(part, 1) else part for part in parts)
    if isinstance(value, np.integer | np.floating):
        return value.item()  # pyright: ignore[reportUnknownMemberType]
    return str(value) if isinstance(value, Path) else value
