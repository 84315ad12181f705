"""What settings.json says of a run: settings, data, libraries, who wrote the newest checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from training_recipe.files.json_files import read_json, write_json
from training_recipe.options.settings import TrainingSettings
from transformer_spec import Faults, UserError
from transformer_spec.json_text import read_fields

FORMAT_VERSION = 1
LIBRARIES = ("numpy", "torch", "jax", "jaxlib", "flax", "optax", "sentencepiece", "sacrebleu")
# What older records do not say.
ADDED: dict[str, Any] = {
    "newest_checkpoint": None,
    "plan_fingerprint": None,
    "judged_fingerprint": None,
    "valid_fingerprint": None,
}


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """``backend`` wrote ``newest_checkpoint``, or is to write the first where there is none.

    ``data_fingerprint`` is of the training pairs, ``plan_fingerprint`` of their batches,
    ``judged_fingerprint`` of validation and test, ``valid_fingerprint`` of validation alone;
    records of older versions lack the last three.
    """

    settings: TrainingSettings
    backend: str
    data_fingerprint: str
    newest_checkpoint: int | None = None
    plan_fingerprint: str | None = None
    judged_fingerprint: str | None = None
    valid_fingerprint: str | None = None

    def save(self, path: Path) -> None:
        """Replace settings.json at once."""
        content = {"format_version": FORMAT_VERSION} | {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        content["settings"] = self.settings.to_dict()
        write_json(path, content | {"versions": library_versions()})

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read settings.json; a damaged file or unknown setting is a UserError that names it."""
        content = read_json(path)
        if content.get("format_version") != FORMAT_VERSION:
            given = content.get("format_version")
            raise UserError(
                f"{path} has format_version {given!r}; this program reads {FORMAT_VERSION}"
            )
        faults, settings = Faults(), content.get("settings")
        rest = read_fields(cls, ADDED | content, faults)
        faults.require(isinstance(settings, dict), "settings is missing or no object")
        faults.raise_if_any(f"{path} is damaged")
        try:
            return cls(TrainingSettings.from_dict(content["settings"]), **rest)
        except UserError as error:
            raise UserError(f"{path}: {error}", error.faults) from None


@functools.cache
def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that numbers depend on, those installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
