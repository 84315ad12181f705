"""Features of the user's own to compare two models on, and what reads them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parity.forward.ids import ONLY_PADDING, Ids, generated_targets, only_padding
from transformer_spec import Faults, TransformerConfig, UserError, source_positions
from transformer_spec.errors import system_fault

FEATURES, TARGET = "features", "target"
ROWS = 4


def read_features(
    path: Path, config: TransformerConfig, seed: int = 0, whole: bool = False
) -> list[Ids]:
    """Features (B, W, M) or (W, M) of a .npy file, or of a .npz file with ``features``.

    The .npz may hold a ``target`` (B, T) of ids as well, taken as the decoder gets it, its start
    token included and filled up with ``pad_id``; without one it is generated. With ``whole`` there
    must be as many frames as the model has positions for.
    """
    arrays, faults = _arrays(path), Faults()
    features = arrays[FEATURES]
    features = features[None] if features.ndim == 2 else features
    _check_features(features, config, whole, faults)
    if TARGET in arrays:
        _check_target(arrays[TARGET], len(features), config, faults)
    faults.raise_if_any(f"{path} holds no features for this model")
    target = arrays.get(TARGET)
    if target is None:
        target = generated_targets(config, len(features), seed)
    return [
        Ids(features[k : k + ROWS], target[k : k + ROWS].astype(np.int64))
        for k in range(0, len(features), ROWS)
    ]


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of a file; ``features`` is there."""
    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            return {FEATURES: held}
        with held:
            arrays = {name: held[name] for name in held.files}
    except FileNotFoundError as error:
        raise UserError(f"cannot read {system_fault(error)}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path} as .npy or .npz: {error}") from None
    if FEATURES not in arrays:
        names = ", ".join(arrays) or "nothing"
        raise UserError(f"{path} holds {names}; give an array named {FEATURES}")
    return arrays


def _check_features(
    features: np.ndarray, config: TransformerConfig, whole: bool, faults: Faults
) -> None:
    shape, M = list(features.shape), config.feature_dim
    fits = features.ndim == 3 and 0 not in shape and shape[2] == M
    if not (fits and features.dtype.kind == "f"):
        advice = f"give floats [rows, frames, {M}]"
        turned = " (transformers has frames last: transpose them)" if shape[-2:-1] == [M] else ""
        faults.add(f"{FEATURES} are {features.dtype} {shape}; {advice}{turned}")
        return
    positions, longest = source_positions(features.shape, config), config.max_source_length
    only = ", no fewer and no more" if whole else ""
    told = f"{FEATURES} have {shape[1]} frames; the model takes {2 * longest}{only}"
    faults.require(shape[1] == 2 * longest if whole else positions <= longest, told)
    faults.require(bool(np.isfinite(features).all()), f"{FEATURES} hold NaN or infinite numbers")


def _check_target(target: np.ndarray, rows: int, config: TransformerConfig, faults: Faults) -> None:
    shape, size, longest = list(target.shape), config.target_vocab_size, config.max_length
    if target.ndim != 2 or 0 in shape or shape[0] != rows or target.dtype.kind not in "iu":
        faults.add(f"{TARGET} is {target.dtype} {shape}; give integers [{rows}, tokens]")
        return
    told = f"{TARGET} has {shape[1]} tokens; the model takes {longest}"
    faults.require(shape[1] <= longest, told)
    wrong = target[(target < 0) | (target >= size)]
    if wrong.size:
        faults.add(f"{TARGET} has {wrong[0]}; its vocabulary has {size} tokens")
    for row in np.flatnonzero(only_padding(target, config)):
        faults.add(f"row {row + 1} of {TARGET} {ONLY_PADDING}")
