"""PARITY.md: a certificate in short, for a model page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from parity.certificates.certificate import CARD, Certificate
from parity.certificates.checksums import SUMS
from parity.comparison.report import Rounding, Row, SideSummary
from parity.comparison.text import spread_lines
from parity.forward.substeps import LOGITS, in_words, is_step
from parity.sides.given import local_path
from training_recipe.files.writing import written_aside

GRADIENT = "gradient of "


def write_card(folder: Path, certificate: Certificate) -> Path:
    """Write PARITY.md beside the certificate, replacing an older one; its path."""
    with written_aside(folder / CARD) as aside:
        aside.write_text(card(certificate), encoding="utf-8")
    return folder / CARD


def card(certificate: Certificate) -> str:
    """Markdown: what was compared, the verdict, the rows that matter, and how to verify it."""
    report, made = certificate.report, certificate.versions.items()
    parts = [
        "# Parity",
        f"This model (B: {side(report.b)}) was compared with A: {side(report.a)}.",
        f"**{'PASS' if report.same else 'FAIL'}: {report.verdict}**",
        *map(escaped, report.notes),
        table(("largest difference of", "float64", "bound", ""), rows_that_matter(report.rows)),
        *budget(report.budget),
        *spread_lines(report.budget),
        f"Computed on {certificate.date} with {', '.join(map(' '.join, made))}; "
        f"{certificate.platform.get('system', '')}, {certificate.platform.get('processor', '')}.",
        f"`certificate.json` holds every row, `{SUMS}` the SHA-256 of every file. To verify the "
        "files, and with A at hand the comparison:",
        f"```\nsha256sum -c {SUMS}\npython -m parity verify FOLDER --a A\n```",
    ]
    return "\n\n".join(parts) + "\n"


def side(summary: SideSummary) -> str:
    """What a side is; of a path the last part alone, for a page shows no one's folders."""
    return escaped(f"{local_path(summary.given).name or '.'}, {summary.what}")


def rows_that_matter(rows: tuple[Row, ...]) -> list[tuple[str, ...]]:
    """Logits, loss, and the sub-step and gradient nearest to their bounds or farthest beyond."""
    groups = {
        "logits": [row for row in rows if row.part == LOGITS],
        "loss": [row for row in rows if row.part == "loss"],
        "worst sub-step": [row for row in rows if is_step(row.part)],
        "worst gradient": [row for row in rows if row.part.startswith(GRADIENT)],
    }
    found = []
    for name, members in groups.items():
        if members:
            row = max(members, key=lambda row: row.nearness)
            part = in_words(row.part) if is_step(row.part) else row.part.removeprefix(GRADIENT)
            named = f"{name}: {part}" if name.startswith("worst") else name
            verdict = "PASS" if row.passed else "FAIL"
            found.append((named, f"{row.float64:.1e}", f"{row.bound:.1e}", verdict))
    return found


def budget(formats: Mapping[str, Rounding]) -> list[str]:
    """The error of the logits in each number format, each side against its own float64."""
    rows = []
    for name, rounding in formats.items():
        for who, found in rounding.sides.items():
            errors = (f"{e:.1e}" for e in (found.max_abs, found.relative, found.max_kl))
            rows.append((f"{name} {who}", *errors, f"{found.top1:.2%}", f"{found.top5:.2%}"))
    head = ("logits against float64", "max abs", "relative", "max KL", "top 1", "top 5")
    return [table(head, rows)] if rows else []


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(map(escaped, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text that cannot end a cell or a line."""
    return " ".join(text.replace("|", "\\|").split())
