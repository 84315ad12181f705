"""What was written of the tensors of a folder, with which every reader compares what it reads.

A checkpoint and a mean of checkpoints have tensors.json, a converted folder has conversion.json:
both keep the SHA-256 of every tensor. Checkpoints of older versions keep that of whole files only,
in progress.json or average.json: these are read once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from convert.core.checked import Checked
from convert.core.ledger import LEDGER_VERSION, Hashed
from convert.core.tensors import Tensors
from convert.formats.content import some_of
from training_recipe.files.json_files import read_json, write_json
from training_recipe.runs.averages import ORIGIN
from training_recipe.runs.integrity import changed_file, whole_beside
from training_recipe.runs.progress import PROGRESS
from transformer_spec import UserError

TENSORS = "tensors.json"
LEDGER = "conversion.json"
VERSION = 1
EXACT = "float32"
ANYWAY = "--no-verify (verify=False in Python) reads it as it is"
ANOTHER = f"take another checkpoint, or {ANYWAY}"
AGAIN = (
    f"where they are damaged, convert again; where they were changed on purpose, {ANYWAY}, and so "
    f"does every command once {LEDGER} is deleted"
)


@dataclass(frozen=True)
class Record:
    """The file at ``path`` and what it says: SHA-256 by tensor, and the optimizer's steps."""

    path: Path
    hashes: Mapping[str, str]
    count: int | None

    @property
    def _is_of_checkpoint(self) -> bool:
        return self.path.name == TENSORS

    def check_count(self, count: int | None, label: str) -> None:
        """Raise a UserError where an optimizer has made another number of steps."""
        if None not in (count, self.count) and count != self.count:
            said = f"{label}: the optimizer has made {count} steps, {self.count} by {self.path}"
            raise UserError(f"{said}; {self._advice()}")

    def _advice(self) -> str:
        return _another(self.path.parent) if self._is_of_checkpoint else AGAIN

    def has(self, beginnings: tuple[str, ...]) -> bool:
        """Whether names with one of these beginnings were written."""
        return any(name.startswith(beginnings) for name in self.hashes)

    def checked(self, tensors: Tensors) -> Tensors:
        """Tensors that are compared while they are read; those of a checkpoint are all known."""
        return Checked(tensors, self.hashes, self._error, whole=self._is_of_checkpoint)

    def _error(self, compared: int, differing: Mapping[str, list[str]]) -> UserError:
        lines, advice = [], self._advice()
        for file, names in differing.items():
            what = "is damaged" if self._is_of_checkpoint else "does not hold what was converted"
            listed = some_of([repr(name) for name in names])
            lines.append(f"{file} {what}: {listed}")
        differ = sum(map(len, differing.values()))
        counted = f"{differ} of {compared} tensors differ from {self.path}"
        return UserError("\n".join([*lines[:-1], f"{lines[-1]} ({counted}); {advice}"]), lines)


def checked(tensors: Tensors, record: Record | None) -> Tensors:
    """Tensors that are compared with a record while they are read, where there is one."""
    return record.checked(tensors) if record else tensors


def write_record(folder: Path, tensors: Hashed, count: int | None = None) -> None:
    """Write tensors.json: the SHA-256 of every tensor that was read to be written, by name."""
    hashes = {name: tensors.found[name].sha256 for name in sorted(tensors)}
    write_json(folder / TENSORS, {"format_version": VERSION, "count": count, "tensors": hashes})


def record_in(folder: Path) -> Record | None:
    """What a folder says of its tensors; None where it says nothing, or is another program's.

    Changed files of an older checkpoint are a UserError, as is a record that cannot be read.
    """
    if (folder / TENSORS).is_file() or (folder / LEDGER).is_file():
        return tensor_record(folder)
    return _told(_check_files, folder, lambda: _another(folder))


def is_recorded(path: Path) -> bool:
    """Whether weights at a path lie in a folder that this program wrote, of whatever version."""
    names = (TENSORS, LEDGER, PROGRESS, ORIGIN)
    return any((folder / name).is_file() for folder in (path, path.parent) for name in names)


def tensor_record(folder: Path) -> Record | None:
    """The same of tensors alone: no file of an older checkpoint is read."""
    if (folder / TENSORS).is_file():
        return _told(_of_checkpoint, folder / TENSORS, lambda: _another(folder))
    if (folder / LEDGER).is_file():
        return _told(_of_conversion, folder / LEDGER, lambda: ANYWAY)
    return None


def _another(folder: Path) -> str:
    """What to do about a damaged checkpoint."""
    whole = whole_beside(folder)
    return f"{whole}, or {ANYWAY}" if whole else ANOTHER


def _told(
    read: Callable[[Path], Record | None], path: Path, advice: Callable[[], str]
) -> Record | None:
    try:
        return read(path)
    except UserError as error:
        raise UserError(f"{error}; {advice()}") from None


def _of_checkpoint(path: Path) -> Record:
    content = read_json(path)
    hashes, count = content.get("tensors"), content.get("count")
    if content.get("format_version") != VERSION or not _is_text_by_text(hashes):
        raise UserError(f"{path} is damaged, or of a newer version: it does not list tensors")
    return Record(path, hashes, count if isinstance(count, int) else None)


def _of_conversion(path: Path) -> Record | None:
    content = read_json(path)
    targets, count = content.get("targets"), content.get("optimizer_steps")
    to = content.get("to")
    if isinstance(to, dict) and to.get("quantization", EXACT) != EXACT:
        return None  # what it says of tensors was said before they were rounded
    if content.get("format_version") != LEDGER_VERSION or not isinstance(targets, dict):
        return None
    entries = {name: entry for name, entry in targets.items() if isinstance(entry, dict)}
    hashes = {name: entry.get("sha256") for name, entry in entries.items()}
    if len(entries) < len(targets) or not _is_text_by_text(hashes):
        raise UserError(f"{path} is damaged: not every target has a sha256")
    return Record(path, hashes, count if isinstance(count, int) else None)


def _is_text_by_text(content: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(content, dict) and all(isinstance(value, str) for value in content.values())


def _check_files(folder: Path) -> Record | None:
    """Compare the files that are there with what an older checkpoint says of them."""
    place = next((folder / n for n in (PROGRESS, ORIGIN) if (folder / n).is_file()), None)
    files = read_json(place).get("files") if place else None
    if files is None:
        return
    if not isinstance(files, dict) or not all(map(_is_fingerprint, files.values())):
        raise UserError(f"{place} is damaged: it does not say what the files were")
    there = {name: said for name, said in files.items() if (folder / name).is_file()}
    fault = changed_file(folder, there)
    if fault is not None:
        raise UserError(fault)


def _is_fingerprint(content: Any) -> bool:
    return isinstance(content, dict) and {"bytes", "sha256"} == content.keys()
