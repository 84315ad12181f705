"""certificate.json: what was compared with what result, and fingerprints of the files of both.

Its own sha256 shows that it was edited; it is no signature, for whoever edits it can compute that
again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from convert.core.parallel import CORES
from parity.files_of_a import files_of_a
from parity.fingerprints import read_files, shown
from training_recipe.files.json_files import json_text
from training_recipe.files.writing import written_aside
from transformer_spec import Faults, UserError

CERTIFICATE = "certificate.json"
CARD = "PARITY.md"
PLOT = "parity.png"
FORMAT = "twinformer parity certificate"
FORMAT_VERSION = 1
OWN = (CERTIFICATE, CARD, PLOT)
# Files of the comparison itself, texts for readers, and what git and the Hub add to a folder.
NOT_COVERED = (*OWN, "README.md", ".gitattributes", ".git", ".cache")
LIBRARIES = (
    *("twinformer", "numpy", "torch", "jax", "jaxlib", "flax"),
    *("transformers", "ctranslate2"),
)
TYPES = {"date": str, "files": dict, "report": dict, "versions": dict, "platform": dict}

ROW = ("part", "float64", "bound", "passed")

Certificate = dict[str, Any]


def write_certificate(folder: Path, report: dict[str, Any]) -> Path:
    """Write certificate.json into the folder of checkpoint B; the file's path.

    ``report`` is what a comparison gave. All files that cannot be read, are no plain files or lead
    out of the folder are one UserError. NaN and infinite numbers become strings, for JSON has none.
    """
    check_folder(folder)
    files = read_files(folder, NOT_COVERED, OWN)
    listed = Faults()
    for name, reason in sorted(files.faults.items()):
        listed.add(f"{shown(name)}: {reason}")
    listed.raise_if_any(f"no certificate for {folder}")
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": plain(report.get("config") or config_in(folder)),
        "versions": versions(),
        "platform": machine(report),
        "files": files.found,
        "a_files": files_of_a(report["a"]["given"], NOT_COVERED) if report.get("a") else None,
        "not_covered": list(NOT_COVERED),
        "report": plain(report),
    }
    content["sha256"] = own_sha256(content)
    with written_aside(folder / CERTIFICATE) as aside:
        aside.write_text(json_text(content), encoding="utf-8")
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


def own_sha256(certificate: Certificate) -> str:
    """SHA-256, in hex, of everything but ``sha256`` as JSON with sorted keys and no spaces."""
    rest = {key: value for key, value in certificate.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def report_json(report: Any) -> str:
    """What ``--json`` prints: strict JSON, numbers that it cannot hold as strings."""
    return json.dumps(plain(report), indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """The same data with NaN and infinite numbers as the strings ``float`` reads."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_certificate(folder: Path) -> Certificate:
    """The certificate of a folder, which may have been edited: see ``is_intact``.

    A folder without one, a damaged or foreign file and another format version are UserErrors.
    """
    check_folder(folder)
    path = folder / CERTIFICATE
    try:
        content = strict_json(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {CERTIFICATE}; python -m parity A {folder} --certificate writes one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = f"{path} cannot be read as JSON ({error})"
        raise UserError(f"{reason}; it may be cut off: get or write it again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is no {FORMAT}: its format should be {FORMAT!r}")
    check_version(path, content.get("format_version"))
    return content


def check_version(path: Path, version: Any) -> None:
    """A version that this program does not read is a UserError."""
    if version == FORMAT_VERSION and type(version) is int:
        return
    newer = type(version) is int and version > FORMAT_VERSION
    hint = "install a newer twinformer" if newer else "write the certificate again"
    raise UserError(
        f"{path} has format_version {version!r}; this program reads {FORMAT_VERSION}: {hint}"
    )


def is_intact(certificate: Certificate) -> bool:
    """Whether it is as it was written, by its own sha256."""
    try:
        return certificate.get("sha256") == own_sha256(certificate)
    except (ValueError, RecursionError):
        return False


def check_shape(path: Path, certificate: Certificate) -> None:
    """All parts of a certificate that are missing or of the wrong type, as one UserError."""
    faults = Faults()
    for name, kind in TYPES.items():
        found = type(certificate.get(name)).__name__
        faults.require(found == kind.__name__, f"{name} should be a {kind.__name__}, is {found}")
    faults.raise_if_any(f"{path} is damaged")
    report = certificate["report"]
    for name in ("files", "a_files"):
        files = certificate.get(name) or {}
        listed = isinstance(files, dict) and all(isinstance(f, dict) for f in files.values())
        faults.require(listed, f"{name}: no list of files")
    rows = report.get("rows")
    listed = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    faults.require(listed, "report: rows should be a list of objects")
    for row in rows if isinstance(rows, list) and listed else ():
        lacking = ", ".join(key for key in ROW if key not in row)
        faults.require(not lacking, f"report: a row has no {lacking}")
    for key in ("a", "b"):
        side = report.get(key)
        given = isinstance(side, dict) and isinstance(side.get("given"), str)
        faults.require(given, f"report: {key} does not say what was given")
    faults.raise_if_any(f"{path} is damaged")


def strict_json(text: str) -> Any:
    """JSON in which a key that comes twice, NaN and Infinity are ValueErrors."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise ValueError("a key comes twice")
        return content

    def finite(token: str) -> float:
        if not math.isfinite(float(token)):
            raise ValueError(f"{token} is no finite number")
        return float(token)

    return json.loads(text, object_pairs_hook=once, parse_constant=finite, parse_float=finite)


def config_in(folder: Path) -> dict[str, Any] | None:
    """The config.json of a folder, or None where there is none that can be read."""
    try:
        content = strict_json((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed; none is imported."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine(report: Mapping[str, Any]) -> dict[str, Any]:
    """System, processor, cores, and the name of the device on which each side computed."""
    sides = {side: report.get(side) or {} for side in ("a", "b")}
    given = report.get("device") or {}
    devices = {
        side: device_name(content.get("framework") or "", given.get(side) or content["device"])
        for side, content in sides.items()
        if given.get(side) or content.get("device")
    }
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": CORES,
        "devices": devices,
    }


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def device_name(framework: str, device: str) -> str:
    """What ``cpu``, ``gpu`` or ``tpu`` is called here, by the framework that computed on it."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    try:
        if device == "cpu":
            return processor()
        if framework == "torch" and torch is not None:
            return torch.cuda.get_device_name()
        if framework == "jax" and jax is not None:
            return jax.devices(device)[0].device_kind
    except (RuntimeError, AssertionError):
        pass
    return device
