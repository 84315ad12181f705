"""Recordings to train and to judge by: their features are computed once and kept in files.

A recording is a source, and its number here stands where a text has ids.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np

from training_recipe.corpora.downloads import cache_folder
from training_recipe.files.fingerprints import fingerprint
from training_recipe.files.writing import replace_file
from training_recipe.sound.features import FRAMES, HOP, WINDOW
from training_recipe.sound.recordings import Recording
from training_recipe.text.frames import Frame
from training_recipe.text.vocabulary_kinds import Side, Vocabulary, write_description
from transformer_spec import Faults, UserError

VERSION = 2  # of features: other ones lie under other names


@dataclass(frozen=True)
class Kept:
    """What is kept of a recording: features (frames, M) up to its silence, and what is to be said.

    One of more than 30 s has no features.
    """

    features: np.ndarray
    notes: list[str]
    is_long: bool

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            said = np.array(self.notes, dtype=np.str_)
            np.savez(file, features=self.features, notes=said, is_long=self.is_long)


class SoundFiles(Vocabulary):
    """Files of sound by their numbers; ``feature_dim`` M numbers in a frame, W frames each.

    A recording of more than 30 s has more ids than a model has positions, and is left out as texts
    are that are too long.
    """

    kind = "sound_files"
    begins_with_target = True

    def __init__(self, feature_dim: int, positions: int) -> None:
        self.feature_dim, self.positions = feature_dim, positions
        self.notes: list[str] = []  # what there is to say of the files
        self._numbers: dict[str, int] = {}
        self._paths: list[str] = []
        self._kept: list[Path | None] = []  # None: too long
        self._digests: list[str] = []

    @property
    def size(self) -> int:
        """None of its ids is a row of a table."""
        return 0

    @property
    def frames(self) -> int:
        """W, of every recording: what is shorter is followed by silence."""
        return 2 * self.positions

    @property
    def frame(self) -> Frame:
        return Frame((), ())

    def hear(self, paths: Iterable[str]) -> None:
        """Compute the features of files that were not read before, under a bar.

        Those that hold no sound are one UserError.
        """
        from tqdm import tqdm

        faults, new = Faults(), [path for path in dict.fromkeys(paths) if path not in self._numbers]
        for path in tqdm(new, "features", unit="file", disable=None, leave=False):
            try:
                self._add(path)
            except UserError as error:
                faults.add(str(error), f"of {len(new):,} files hold no sound")
        faults.raise_if_any("cannot read the recordings")

    def _add(self, path: str) -> None:
        digest = _digest(path)
        kept = cache_folder("features") / f"{digest}-{self.feature_dim}-{VERSION}.npz"
        found = _read(kept) or self._made(path, kept)
        self.notes += [f"warning: {path} {note}" for note in found.notes if note not in self.notes]
        self._numbers[path] = len(self._kept)
        self._kept.append(None if found.is_long else kept)
        self._digests.append(digest)
        self._paths.append(path)

    def _made(self, path: str, kept: Path) -> Kept:
        """The features of a file, which are kept."""
        recording = Recording(path, self.feature_dim)
        short = np.zeros((0, self.feature_dim), np.float32)
        short = short if recording.is_long else before_silence(recording)
        notes = [note.removeprefix(f"{path} ") for note in recording.notes]
        found = Kept(short, notes, recording.is_long)
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_file(kept, found.save)
        return found

    def encode(self, text: str) -> list[int]:
        """The number of a file, which is read where it was not."""
        self.hear([text])
        number = self._numbers[text]
        fits = self._kept[number] is not None
        return [number] if fits else [number] * (self.positions + 1)

    def features(self, numbers: Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
        """(rows, W, M) float32 of recordings; rows beyond them are zeros."""
        found = np.zeros((rows, self.frames, self.feature_dim), np.float32)
        for row, number in zip(found, numbers, strict=False):
            kept = self._kept[number]
            assert kept is not None
            found_again = _read(kept) or self._made(self._paths[number], kept)
            short = found_again.features[: self.frames]
            row[: len(short)] = short
            row[len(short) :] = short[-1]  # silence
        return found

    def pairs(
        self, pairs: Iterable[tuple[list[int], list[int]]]
    ) -> Iterator[tuple[str, list[int]]]:
        """Pairs of ids with what says which sound the source is, whatever its name."""
        return ((self._digests[source[0]], target) for source, target in pairs)

    def digest(self, path: str) -> str:
        """What says which sound a file holds, whatever its name; the file is read where not yet."""
        self.hear([path])
        return self._digests[self._numbers[path]]

    def token(self, index: int) -> str:
        return f"recording {index}"

    def _join(self, ids: list[int]) -> str:
        return " ".join(map(self.token, ids))

    def save(self, folder: Path, side: Side) -> None:
        content = {"feature_dim": self.feature_dim, "positions": self.positions}
        write_description(folder, side, self.kind, content)

    @classmethod
    def read(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """What ``save`` wrote; a ValueError where it lacks a number."""
        M, positions = content.get("feature_dim"), content.get("positions")
        if not (isinstance(M, int) and isinstance(positions, int) and min(M, positions) > 0):
            raise ValueError("its feature_dim and positions must be whole numbers above 0")
        return cls(M, positions)


def before_silence(recording: Recording) -> np.ndarray:
    """(frames, M) float32 up to the first frame of silence, which all others are."""
    last = min(FRAMES - 1, (recording.samples + WINDOW // 2) // HOP + 1)
    return recording.window(0)[0][: last + 1]


def _digest(path: str) -> str:
    try:
        return fingerprint(Path(path))["sha256"]
    except OSError as error:
        raise UserError(f"{path}: {os.strerror(error.errno or 0)}") from None


def _read(path: Path) -> Kept | None:
    """What was kept; None where it is not there, or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as found:
            return Kept(found["features"], found["notes"].tolist(), bool(found["is_long"]))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return None
