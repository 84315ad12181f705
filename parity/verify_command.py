"""python -m parity verify FOLDER: whether a certificate still holds"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from parity.certificate import (
    CERTIFICATE,
    NOT_COVERED,
    OWN,
    Certificate,
    check_shape,
    is_intact,
    read_certificate,
)
from parity.fingerprints import read_files, shown
from parity.given import local_path
from parity.needed import both_frameworks, progress
from transformer_spec import UserError
from transformer_spec.errors import exit_status

ALL, DIFFERS, FILES_ONLY = 0, 1, 3
EPILOG = """exit status:
  0    everything asked for is as certified, and what is certified is PASS
  1    the certificate was edited, a file or a row differs, or what is certified is FAIL
  2    a mistake in what was given
  3    the files are as certified, but A is not there to be compared again"""
Rerun = Callable[[str, str, dict[str, Any]], dict[str, Any]]
Found = dict[str, Any]


def compare_again(a: str, b: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The report of the same comparison, made now."""
    with both_frameworks("--quick verifies the files alone"):
        from parity.compare import Settings, compare
    try:
        chosen = Settings.from_dict(settings)
    except TypeError as error:
        raise UserError(f"the certificate's settings are of another version: {error}") from None
    with progress() as told:
        return compare(a, b, chosen, told)


def main(arguments: Sequence[str], rerun: Rerun = compare_again) -> int:
    """The exit status that --help tells; ``rerun(a, b, settings)`` gives a report."""
    options = parser().parse_args(arguments)
    return exit_status(lambda: run(options, rerun), "stopped before everything was verified")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m parity verify",
        description=f"Compute again what {CERTIFICATE} of a folder says.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("folder", type=Path, metavar="FOLDER", help=f"has {CERTIFICATE}")
    top.add_argument("--quick", action="store_true", help="the files alone, no comparison")
    top.add_argument("--a", metavar="A", help="where A is now (default: as it was given)")
    top.add_argument("--card", action="store_true", help="write PARITY.md, for a model page")
    top.add_argument("--json", action="store_true", help="print JSON")
    return top


def run(options: argparse.Namespace, rerun: Rerun) -> int:
    say = (lambda _: None) if options.json else print
    found = verify(options, rerun, say)
    if options.card and found["status"] != DIFFERS:
        from parity.card import write_card

        path = write_card(options.folder, read_certificate(options.folder))
        found["card"] = str(path)
        say(f"card: {path}")
    say(found["verdict"])
    if options.json:
        print(json.dumps(found, indent=2))
    return found["status"]


def verify(options: argparse.Namespace, rerun: Rerun, say: Callable[[str], object]) -> Found:
    """Certificate, files, comparison, in this order; what is wrong in one ends it."""
    folder, found = options.folder, {}
    certificate = read_certificate(folder)
    found["certificate"] = {"intact": is_intact(certificate)}
    if not is_intact(certificate):
        return found | ended(DIFFERS, f"{folder / CERTIFICATE} was edited after it was written")
    check_shape(folder / CERTIFICATE, certificate)
    found["files"] = files = compare_files(folder, certificate)
    wrong = [line for kind in files for line in file_lines(files, kind)]
    if wrong:
        heading = f"{len(wrong)} files are not as certified:"
        return found | ended(DIFFERS, "\n  ".join([heading, *wrong]))
    say(
        f"the certificate is as written, and all {len(certificate['files'])} files are as certified"
    )
    if certificate["report"].get("passed") is not True:
        verdict = certificate["report"].get("verdict", "")
        return found | ended(DIFFERS, f"what is certified is FAIL: {verdict}")
    if options.quick:
        return found | ended(ALL, "PASS: certificate and files (--quick: nothing was computed)")
    return found | verify_rows(options, certificate, rerun, say)


def ended(status: int, verdict: str) -> Found:
    prefix = "FAIL: " if status == DIFFERS else ""
    return {"status": status, "verdict": prefix + verdict}


def compare_files(folder: Path, certificate: Certificate) -> Found:
    """Names of missing, extra and changed files, and why others cannot be told."""
    now, then = read_files(folder, NOT_COVERED, OWN), certificate["files"]
    return {
        "missing": sorted(then.keys() - now.found.keys() - now.faults.keys()),
        "extra": sorted(now.found.keys() - then.keys()),
        "changed": sorted(n for n in then.keys() & now.found.keys() if then[n] != now.found[n]),
        "unreadable": [f"{shown(name)}: {why}" for name, why in sorted(now.faults.items())],
    }


def file_lines(files: Found, kind: str) -> Iterator[str]:
    for name in files[kind]:
        yield f"{kind:<10}  {name if kind == 'unreadable' else shown(name)}"


def verify_rows(
    options: argparse.Namespace, certificate: Certificate, rerun: Rerun, say: Callable
) -> Found:
    """The comparison once more, row by row."""
    report = certificate["report"]
    a = options.a or report["a"]["given"]
    if not local_path(a).exists():
        return {"comparison": None} | ended(
            FILES_ONLY, f"only the files were verified: A, {a}, is not there; --a says where it is"
        )
    now = rerun(a, given_now(report["b"]["given"], options.folder), report.get("settings") or {})
    rows = list(compared_rows(report["rows"], now["rows"]))
    say("\n".join(row_lines(rows)))
    wrong = [row for row in rows if not row["holds"]]
    if wrong:
        names = ", ".join(row["part"] for row in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        said = ended(DIFFERS, f"{len(wrong)} of {len(rows)} rows do not hold: {names}{more}")
    else:
        said = ended(ALL, f"PASS: certificate, files and all {len(rows)} rows: {now['verdict']}")
    return {"comparison": rows} | said


def given_now(given: str, folder: Path) -> str:
    """Side B in the folder as it is now, which may have moved since, with the flags it had."""
    kind = given.partition(":")[0]
    old = local_path(given)
    place = folder / old.name if (folder / old.name).is_file() else folder
    if kind == "module":
        return f"module:{place}:{given.rpartition(':')[2]}" if place.is_file() else given
    bare = given.removeprefix("hf:")
    flags = bare[len(bare.split(" --")[0]) :]
    return f"{'hf:' if kind == 'hf' else ''}{place}{flags}"


def compared_rows(then: list[Found], now: list[Found]) -> Iterator[Found]:
    """Each certified row beside its row of today, matched by name; rows of today alone last."""
    held = dict(zip(numbered(now), now, strict=True))
    for key, row in zip(numbered(then), then, strict=True):
        yield compared(row, held.pop(key, None))
    for row in held.values():
        yield {"part": row["part"], "certified": None, "now": row["float64"], "holds": False}


def numbered(rows: list[Found]) -> list[tuple[str, int]]:
    """Names that come twice are told apart by their order."""
    seen: Counter[str] = Counter()
    keys = []
    for row in rows:
        keys.append((row["part"], seen[row["part"]]))
        seen[row["part"]] += 1
    return keys


def compared(then: Found, now: Found | None) -> Found:
    """One row: same verdict, and today's float64 difference within the certified bound."""
    row = {"part": then["part"], "certified": then["float64"], "bound": then["bound"]}
    if now is None:
        return row | {"now": None, "holds": False}
    same = bool(now["passed"]) == bool(then["passed"])
    within = float(now["float64"]) <= float(then["bound"])
    found = {"now": now["float64"], "same_verdict": same, "within_bound": within}
    return row | found | {"holds": same and within}


def row_lines(rows: list[Found]) -> list[str]:
    width = max((len(row["part"]) for row in rows), default=0)
    lines = [f"{'float64 difference of':<{width}}  {'certified':>9}  {'now':>9}  {'bound':>9}"]
    for row in rows:
        numbers = "  ".join(number(row.get(key)) for key in ("certified", "now", "bound"))
        lines.append(f"{row['part']:<{width}}  {numbers}  {word(row)}")
    return lines


def number(value: Any) -> str:
    return f"{'-':>9}" if value is None else f"{float(value):>9.1e}"


def word(row: Found) -> str:
    """What became of a row."""
    if row["holds"]:
        return "same verdict, within its bound"
    if row["now"] is None:
        return "FAIL: not computed now"
    if row["certified"] is None:
        return "FAIL: not certified"
    return "FAIL: beyond its bound" if not row["within_bound"] else "FAIL: another verdict"
