"""python -m parity verify FOLDER: whether a certificate still holds"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from convert.commands.source import size
from parity.certificate import (
    CERTIFICATE,
    NOT_COVERED,
    OWN,
    Certificate,
    check_shape,
    is_intact,
    read_certificate,
    report_json,
)
from parity.files_of_a import files_of_a
from parity.fingerprints import read_files, shown
from parity.given import HUGGING_FACE, exists, local_path, path_and_flags
from parity.needed import both_frameworks, progress
from parity.plot import is_step
from training_recipe.options.parser import Parser
from transformer_spec import UserError
from transformer_spec.errors import exit_status

ALL, DIFFERS, PARTLY = 0, 1, 3
EPILOG = """exit status:
  0    everything asked for is as certified, and what is certified is PASS
  1    the certificate was edited, a file or a row differs, or what is certified is FAIL
  2    a mistake in what was given
  3    what could be verified is as certified, but A is not there to be compared again, or
       memory does not suffice for the gradients"""
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
    return exit_status(
        lambda: run(parser().parse_args(arguments), rerun), "stopped before everything was verified"
    )


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m parity verify",
        description=f"Compute again what {CERTIFICATE} of a folder says.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("folder", type=Path, metavar="FOLDER", help=f"has {CERTIFICATE}")
    top.add_argument("--quick", action="store_true", help="the files alone, no comparison")
    top.add_argument("--a", metavar="A", help="where A is now (default: as it was given)")
    top.add_argument("--max-ram", type=size, metavar="SIZE",
        help="most memory to use, as in 8GB (default: most of what is free)")  # fmt: skip
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
        print(report_json(found))
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
    found["a_files"] = of_a = compare_a(
        options.a or certificate["report"]["a"]["given"], certificate
    )
    if isinstance(of_a, list):
        heading = f"{len(of_a)} files of A are not as certified:"
        return found | ended(DIFFERS, "\n  ".join([heading, *of_a]))
    say(of_a)
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
    there = {name: entry for name, entry in then.items() if name not in now.faults}
    unreadable = [f"{shown(name)}: {why}" for name, why in sorted(now.faults.items())]
    return differences(there, now.found) | {"unreadable": unreadable}


def differences(then: Found, now: Found) -> Found:
    return {
        "missing": sorted(then.keys() - now.keys()),
        "extra": sorted(now.keys() - then.keys()),
        "changed": sorted(name for name in then.keys() & now.keys() if then[name] != now[name]),
    }


def compare_a(a: str, certificate: Certificate) -> list[str] | str:
    """The lines of what differs in A's files; where nothing does, what can be said of them."""
    then = certificate.get("a_files")
    if then is None:
        return "A's files are not in the certificate: whether they are the same is not known"
    now = files_of_a(a, NOT_COVERED)
    if now is None:
        return f"A, {a}, is not there: its files were not verified; --a says where it is"
    found = differences(then, now)
    wrong = [line for kind in found for line in file_lines(found, kind)]
    unread = sorted(name for name, entry in then.items() if "fault" in entry)
    but = f"; could not be read, then and now: {', '.join(map(shown, unread))}" if unread else ""
    return wrong or f"all {len(then) - len(unread)} files of A are as certified{but}"


def file_lines(files: Found, kind: str) -> Iterator[str]:
    for name in files[kind]:
        yield f"{kind:<10}  {name if kind == 'unreadable' else shown(name)}"


def verify_rows(
    options: argparse.Namespace, certificate: Certificate, rerun: Rerun, say: Callable
) -> Found:
    """The comparison once more, row by row."""
    report = certificate["report"]
    a = options.a or report["a"]["given"]
    if not exists(str(local_path(a))):
        return {"comparison": None} | ended(
            PARTLY, f"only the files were verified: A, {a}, is not there; --a says where it is"
        )
    # How much memory there was is no part of what is certified.
    settings = (report.get("settings") or {}) | {"max_ram": options.max_ram}
    now = rerun(a, given_now(report["b"]["given"], options.folder), settings)
    notes = now.get("notes") or []
    rows = list(compared_rows(report["rows"], now["rows"], left_out(settings, now)))
    say("\n".join([*notes, *row_lines(rows)]))
    return {"comparison": rows, "notes": notes} | outcome(rows, now["verdict"])


def left_out(settings: Found, now: Found) -> bool:
    """Whether gradients are certified and were left out now, which memory alone brings about."""
    done = (now.get("settings") or {}).get("gradients", True)
    return settings.get("gradients", True) and not done


def outcome(rows: list[Found], verdict: str) -> Found:
    """The status of all rows together, and why."""
    wrong = [row["part"] for row in rows if row["holds"] is False]
    missing = sum(row["holds"] is None for row in rows)
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        names = ", ".join(wrong[:5])
        return ended(DIFFERS, f"{len(wrong)} of {len(rows)} rows do not hold: {names}{more}")
    if missing:
        return ended(
            PARTLY,
            f"certificate, files and {len(rows) - missing} of {len(rows)} rows are as certified; "
            "memory did not suffice for the loss and the gradients (--max-ram)",
        )
    return ended(ALL, f"PASS: certificate, files and all {len(rows)} rows: {verdict}")


def given_now(given: str, folder: Path) -> str:
    """Side B in the folder as it is now, which may have moved since, with the flags it had."""
    if given.startswith(HUGGING_FACE):
        return f"{HUGGING_FACE}{folder}"
    return f"{folder}{path_and_flags(given)[1]}"


def compared_rows(then: list[Found], now: list[Found], spared: bool = False) -> Iterator[Found]:
    """Each certified row beside its row of today, matched by name; rows of today alone last.

    Where gradients are ``spared``, missing ones neither hold nor fail.
    """
    held = dict(zip(numbered(now), now, strict=True))
    for key, row in zip(numbered(then), then, strict=True):
        excused = spared and not is_step(row["part"])
        yield compared(row, held.pop(key, None), excused)
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


def compared(then: Found, now: Found | None, excused: bool) -> Found:
    """One row: same verdict, and today's float64 difference within the certified bound."""
    row = {"part": then["part"], "certified": then["float64"], "bound": then["bound"]}
    if now is None:
        return row | {"now": None, "holds": None if excused else False}
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
    if row["holds"] is None:
        return "not computed: not enough memory"
    if row["now"] is None:
        return "FAIL: not computed now"
    if row["certified"] is None:
        return "FAIL: not certified"
    return "FAIL: beyond its bound" if not row["within_bound"] else "FAIL: another verdict"
