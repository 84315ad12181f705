"""Whether a certificate still holds: its files by their checksums, its numbers compared again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from parity.certificates.certificate import CERTIFICATE, NOT_COVERED, Certificate, read_certificate
from parity.certificates.checksums import (
    SUMS,
    Checksums,
    checksums,
    files_below,
    files_of,
    read_sums,
    shown,
)
from parity.comparison.report import Report, Row
from parity.comparison.settings import Settings
from parity.forward.substeps import is_step
from parity.frameworks import both_frameworks
from parity.sides.given import HUGGING_FACE, MODULE, exists, local_path, path_and_flags
from transformer_spec import UserError

ALL, DIFFERS, PARTLY = 0, 1, 3
Said = Callable[[str], object]
Rerun = Callable[[str, str, Settings], Report]


@dataclass(frozen=True)
class Verify:
    """What to verify: a folder with a certificate; ``a`` is where A is now, ``max_ram`` bytes.

    ``quick`` verifies the files alone. Code that a certificate names as A is run only as ``a``.
    """

    folder: Path
    a: str | None = None
    quick: bool = False
    max_ram: int | None = None


@dataclass(frozen=True)
class Changes:
    """Names of files that are not as certified."""

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        return [f"{kind:<8} {shown(n)}" for kind, names in asdict(self).items() for n in names]


@dataclass(frozen=True)
class CheckedRow:
    """A certified row beside that of today; either is None where there is none.

    ``holds`` is None where memory did not suffice to compute it again.
    """

    part: str
    certified: float | None
    now: float | None
    bound: float
    holds: bool | None


@dataclass(frozen=True)
class Verification:
    """``status`` is ALL (0), DIFFERS (1) or PARTLY (3); None stands for what was not looked at."""

    status: int
    verdict: str
    notes: tuple[str, ...] = ()
    files: Changes | None = None
    a_files: Changes | None = None
    rows: tuple[CheckedRow, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_again(a: str, b: str, settings: Settings, say: Said = lambda _: None) -> Report:
    """The same comparison, made now."""
    with both_frameworks("--quick verifies the files alone", (a, b)):
        from parity.comparison.comparison import compare
    return compare(a, b, settings, say)


def verify(request: Verify, rerun: Rerun = compare_again) -> Verification:
    """Files, then A's files, then the comparison; what is wrong in one ends it.

    What is no certified folder is a UserError.
    """
    certificate = read_certificate(request.folder)
    then = read_sums(request.folder / SUMS)
    if CERTIFICATE not in then:
        raise UserError(f"{request.folder / SUMS} does not list {CERTIFICATE}")
    files = changes(then, checksums(files_below(request.folder, NOT_COVERED)))
    if files != Changes():
        said = "\n  ".join(["FAIL: files are not as certified:", *files.lines()])
        return Verification(DIFFERS, said, files=files)
    notes = f"certificate and all {len(then)} files are as certified"
    found = Verification(ALL, "PASS: certificate and files", (notes,), files)
    return with_a(found, request, certificate, rerun)


def changes(then: Checksums, now: Checksums) -> Changes:
    return Changes(
        tuple(sorted(then.keys() - now.keys())),
        tuple(sorted(now.keys() - then.keys())),
        tuple(sorted(name for name in then.keys() & now.keys() if then[name] != now[name])),
    )


def with_a(
    found: Verification, request: Verify, certificate: Certificate, rerun: Rerun
) -> Verification:
    """The verification with A's files, where they are there, and the comparison."""
    a, then = request.a or certificate.report.a.given, certificate.a_files
    now = files_of(a, NOT_COVERED)
    if then is None:
        note = "A's files are not in the certificate: whether they are the same is not known"
    elif now is None:
        note = f"A, {a}, is not there: its files were not verified; --a says where it is"
    else:
        differ = changes(then, checksums(now))
        found = replace(found, a_files=differ)
        if differ != Changes():
            said = "\n  ".join(["FAIL: files of A are not as certified:", *differ.lines()])
            return replace(found, status=DIFFERS, verdict=said)
        note = f"all {len(then)} files of A are as certified"
    found = replace(found, notes=(*found.notes, note))
    if not certificate.report.same:
        verdict = f"FAIL: what is certified is no equality: {certificate.report.verdict}"
        return replace(found, status=DIFFERS, verdict=verdict)
    if request.quick:
        return replace(found, verdict=f"{found.verdict} (--quick: nothing was computed)")
    if not exists(str(local_path(a))):
        verdict = f"only the files were verified: A, {a}, is not there; --a says where it is"
        return replace(found, status=PARTLY, verdict=verdict)
    if request.a is None and a.startswith(MODULE):
        verdict = (
            f"only the files were verified: A, {a}, is code that the certificate names; read it, "
            f"and give --a {quote(a)} to run it"
        )
        return replace(found, status=PARTLY, verdict=verdict)
    return with_rows(found, request, certificate.report, rerun(*again(a, request, certificate)))


def again(a: str, request: Verify, certificate: Certificate) -> tuple[str, str, Settings]:
    """The same comparison; how much memory there was is no part of what is certified."""
    settings = replace(certificate.report.settings, max_ram=request.max_ram)
    return a, given_now(certificate.report.b.given, request.folder), settings


def given_now(given: str, folder: Path) -> str:
    """Side B in the folder as it is now, which may have moved since, with the flags it had."""
    if given.startswith(HUGGING_FACE):
        return f"{HUGGING_FACE}{folder}"
    return f"{folder}{path_and_flags(given)[1]}"


def with_rows(found: Verification, request: Verify, then: Report, now: Report) -> Verification:
    """The verification with each row beside its row of today."""
    # Only too little memory leaves out gradients that were asked for.
    spared = then.settings.gradients and not now.settings.gradients
    rows = tuple(checked_rows(then.rows, now.rows, spared))
    found = replace(found, rows=rows, notes=(*found.notes, *now.notes))
    wrong = [row.part for row in rows if row.holds is False]
    held = sum(row.holds is True for row in rows)
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        names = f"{', '.join(wrong[:5])}{more}"
        verdict = f"FAIL: {len(wrong)} of {len(rows)} rows do not hold: {names}"
        return replace(found, status=DIFFERS, verdict=verdict)
    if held < len(rows):
        verdict = (
            f"certificate, files and {held} of {len(rows)} rows are as certified; memory did not "
            "suffice for the loss and the gradients (--max-ram)"
        )
        return replace(found, status=PARTLY, verdict=verdict)
    verdict = f"PASS: certificate, files and all {len(rows)} rows: {now.verdict}"
    return replace(found, verdict=verdict)


def checked_rows(then: Iterable[Row], now: Iterable[Row], spared: bool) -> Iterator[CheckedRow]:
    """Each certified row beside its row of today, matched by name; rows of today alone last.

    Where gradients are ``spared``, missing ones neither hold nor fail.
    """
    held = {row.part: row for row in now}
    for row in then:
        today = held.pop(row.part, None)
        if today is None:
            holds = None if spared and not is_step(row.part) else False
            yield CheckedRow(row.part, row.float64, None, row.bound, holds)
        else:
            holds = today.float64 <= row.bound
            yield CheckedRow(row.part, row.float64, today.float64, row.bound, holds)
    for row in held.values():
        yield CheckedRow(row.part, None, row.float64, row.bound, False)
