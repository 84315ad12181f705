"""certificate.json: a report, what made it, A's checksums; SHA256SUMS: those of B's files.

Neither is a signature: whoever edits them can compute the checksums again.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parity.certificates.checksums import (
    SUMS,
    Checksums,
    checksums,
    files_below,
    files_of,
    sums_text,
)
from parity.comparison.report import Report, SideSummary, json_of
from training_recipe.files.json_files import read_json
from training_recipe.files.writing import written_aside
from training_recipe.runs.record import library_versions
from transformer_spec import UserError
from transformer_spec.cores import cores

CERTIFICATE = "certificate.json"
CARD = "PARITY.md"
# The list itself, texts for readers, and what git and the Hub add to a folder.
PICTURES = "parity.png", "parity.html"
NOT_COVERED = (SUMS, CARD, *PICTURES, "README.md", ".gitattributes", ".git", ".cache")
FORMAT = "twinformer parity certificate"
FORMAT_VERSION = 2


@dataclass(frozen=True)
class Certificate:
    """A report, when and by what it was made, and A's files by name, where they could be told.

    ``versions`` are those of the libraries, ``a_files`` SHA-256 by name.
    """

    report: Report
    date: str
    versions: Mapping[str, str]
    platform: Mapping[str, Any]
    a_files: Checksums | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "date": self.date,
            "versions": dict(self.versions),
            "platform": dict(self.platform),
            "a_files": self.a_files,
            "report": self.report.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Certificate:
        """What is no certificate, of another version or damaged is a UserError."""
        if content.get("format") != FORMAT:
            raise UserError(f"its format should be {FORMAT!r}, and is {content.get('format')!r}")
        version = content.get("format_version")
        if version != FORMAT_VERSION or type(version) is not int:
            raise UserError(
                f"it has format_version {version!r}, and this program reads {FORMAT_VERSION}: "
                "write the certificate again, or install the twinformer that wrote it"
            )
        try:
            kept = (content[name] for name in ("date", "versions", "platform", "a_files"))
            date, versions, machine, files = kept
            parts = str(date), dict(versions), dict(machine), files and dict(files)
            return cls(Report.from_dict(content["report"]), *parts)
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"it is damaged: {error}") from None


def write_certificate(folder: Path, report: Report) -> Path:
    """Write certificate.json and SHA256SUMS into the folder of checkpoint B; the former's path.

    Files that cannot be read are one UserError.
    """
    check_folder(folder)
    sources = files_of(report.a.given, NOT_COVERED)
    certificate = Certificate(
        report,
        datetime.now(UTC).isoformat(timespec="seconds"),
        library_versions(),
        machine(report),
        None if sources is None else checksums(sources),
    )
    found = checksums(files_below(folder, (*NOT_COVERED, CERTIFICATE)))
    with written_aside(folder / CERTIFICATE) as aside:
        aside.write_text(json_of(certificate.to_dict()) + "\n", encoding="utf-8")
    found |= checksums({CERTIFICATE: folder / CERTIFICATE})
    with written_aside(folder / SUMS) as aside:
        aside.write_text(sums_text(found), encoding="utf-8", errors="surrogateescape")
    return folder / CERTIFICATE


def check_folder(folder: Path) -> None:
    """What is no folder is a UserError."""
    if not folder.exists():
        raise UserError(f"{folder} does not exist")
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder; a certificate covers the whole folder of a checkpoint, which "
            "python -m convert makes of a file"
        )


def read_certificate(folder: Path) -> Certificate:
    """The certificate of a folder; one that is missing, damaged or foreign is a UserError."""
    check_folder(folder)
    path = folder / CERTIFICATE
    if not path.is_file():
        hint = f"python -m parity A {folder} --certificate writes one"
        raise UserError(f"{folder} has no {CERTIFICATE}; {hint}")
    try:
        return Certificate.from_dict(read_json(path))
    except RecursionError:
        raise UserError(f"{path} is damaged: it is nested too deeply") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def machine(report: Report) -> dict[str, Any]:
    """System, processor, cores, and the name of the device on which each side computed."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "devices": {"a": device_name(report.a), "b": device_name(report.b)},
    }


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def device_name(side: SideSummary) -> str:
    """What ``cpu``, ``gpu`` or ``tpu`` is called here, by the framework that computed on it."""
    if side.device == "cpu":
        return processor()
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    try:
        if side.framework == "torch" and torch is not None:
            return torch.cuda.get_device_name()
        if side.framework == "jax" and jax is not None:
            return jax.devices(side.device)[0].device_kind
    except (RuntimeError, AssertionError):
        pass
    return side.device
