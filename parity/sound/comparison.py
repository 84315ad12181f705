"""The features of a recording, ours beside those of a folder's own extractor or of a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from parity.comparison.report import Cause, Row
from parity.comparison.text import FEATURES
from parity.forward.measures import largest
from parity.sides.given import local_path
from parity.sides.side import Side
from parity.sound.front_ends import BOUND, explanations
from training_recipe.sound.audio import Audio
from training_recipe.sound.features import FRAMES, SAMPLES, log_mel
from transformer_spec import TransformerConfig, UserError

EXTRACTORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Sound:
    """The first 30 s of a recording: samples, and features (3000, M) as this package makes them."""

    samples: np.ndarray
    features: np.ndarray


@dataclass
class Compared:
    """Rows of features, notes on what could not be compared, and why features differ."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)

    def add(self, whose: str, sound: Sound, theirs: np.ndarray) -> None:
        """Features of one more front end; those of another shape differ without end."""
        fits = theirs.shape == sound.features.shape
        apart = largest(theirs - sound.features) if fits else np.inf
        self.rows.append(Row(f"{FEATURES} of {whose}", apart, BOUND, largest(sound.features)))
        if not apart <= BOUND:
            unknown = f"features of {whose}: no known slip of a front end explains them"
            found = self._why(whose, sound, theirs)
            self.causes += found or [Cause("front end", unknown, apart)]

    def _why(self, whose: str, sound: Sound, theirs: np.ndarray) -> list[Cause]:
        if theirs.shape != sound.features.shape:
            found = f"{list(theirs.shape)} for {list(sound.features.shape)}"
            return [Cause("front end", f"features of {whose}: {found} (frames, bins)", np.inf)]
        known = explanations(sound.samples, theirs)
        return [Cause("front end", f"features of {whose}: {what}", left) for what, left in known]


def heard(path: Path, config: TransformerConfig) -> Sound:
    """The sound of a file for a model; what it cannot hear is a UserError."""
    if 2 * config.max_source_length != FRAMES:
        raise UserError(
            f"--audio: a window has {FRAMES} frames, and the model takes "
            f"{2 * config.max_source_length}; give --features FILE.npy"
        )
    blocks, held = [], 0
    for block in Audio(path).blocks():
        blocks.append(block)
        held += len(block)
        if held >= SAMPLES:
            break
    if not held:
        raise UserError(f"{path} holds no sound")
    samples = np.concatenate(blocks)[:SAMPLES]
    return Sound(samples, log_mel(samples, config.feature_dim, np.float64))


def compared(sound: Sound, sides: tuple[Side, Side], features: np.ndarray | None) -> Compared:
    """Every front end that there is: a file's features, and the extractors of both folders."""
    found = Compared()
    if features is not None:
        found.add("the file", sound, np.asarray(features, np.float64))
    for label, folder in extractors(sides):
        theirs = extracted(folder, sound.samples)
        if theirs is None:
            found.notes.append(
                f"the feature extractor of {label} is not compared: pip install transformers"
            )
        else:
            found.add(label, sound, theirs)
    if not found.rows and not found.notes:
        found.notes.append(
            "no other front end is compared: neither A nor B has a "
            f"{EXTRACTORS[0]}; --features FILE.npy gives those of one"
        )
    return found


def extractors(sides: tuple[Side, Side]) -> Iterator[tuple[str, Path]]:
    """The sides whose folders say how features are extracted, each folder once."""
    seen = set[Path]()
    for label, side in zip("AB", sides, strict=True):
        folder = local_path(side.given)
        if any((folder / name).is_file() for name in EXTRACTORS) and folder not in seen:
            seen.add(folder)
            yield label, folder


def extracted(folder: Path, samples: np.ndarray) -> np.ndarray | None:
    """The features (W, M) by transformers as a folder says; None where it is not installed."""
    try:
        from transformers import WhisperFeatureExtractor
    except ImportError:
        return None
    try:
        extractor = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        found = extractor(samples.astype(np.float32), sampling_rate=16000, return_tensors="np")
    except Exception as error:  # whatever the library meets in damaged settings
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"transformers cannot extract features by {folder}: {reason}") from error
    return np.asarray(found["input_features"][0].T, np.float64)
