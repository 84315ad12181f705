"""PARITY.md: a certificate in short, for a model page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parity.certificate import CARD, Certificate
from parity.given import local_path
from parity.plot import is_step
from parity.substeps import LOGITS, in_words
from training_recipe.files.writing import written_aside

GRADIENT = "gradient"


def write_card(folder: Path, certificate: Certificate) -> Path:
    """Write PARITY.md beside the certificate, replacing an older one; its path."""
    with written_aside(folder / CARD) as aside:
        aside.write_text(card(certificate), encoding="utf-8")
    return folder / CARD


def card(certificate: Certificate) -> str:
    """Markdown: what was compared, the verdict, the rows that matter, and how to verify it."""
    report = certificate["report"]
    verdict = "PASS" if report.get("passed") is True else "FAIL"
    size = sum(entry.get("bytes", 0) for entry in certificate["files"].values())
    made = ", ".join(f"{name} {version}" for name, version in certificate["versions"].items())
    machine = certificate["platform"]
    parts = [
        "# Parity",
        f"This model (B: {side(report['b'])}) was compared with A: {side(report['a'])}.",
        f"**{verdict}: {report.get('verdict', '')}**",
        *map(escaped, report.get("notes") or ()),
        table(
            ("largest difference of", "float64", "bound", ""),
            [
                (name, number(row["float64"]), number(row["bound"]), word(row))
                for name, row in rows_that_matter(report["rows"])
            ],
        ),
        *budget(report.get("budget") or {}),
        f"Computed on {certificate['date']} with {made}; {machine.get('system', '')}, "
        f"{machine.get('processor', '')}.",
        f"`certificate.json` holds every row and the SHA-256 of {len(certificate['files'])} files "
        f"({size:,} bytes){and_of_a(certificate)}. To verify the files, "
        "and with A at hand the comparison:",
        "```\npython -m parity verify FOLDER --quick\npython -m parity verify FOLDER --a A\n```",
    ]
    return "\n\n".join(parts) + "\n"


def and_of_a(certificate: Certificate) -> str:
    files = certificate.get("a_files")
    if files is None:
        return ""
    return f" and of {sum('sha256' in entry for entry in files.values())} files of A"


def side(content: dict[str, Any]) -> str:
    """What a side is; of a path the last part alone, for a page shows no one's folders."""
    name = local_path(content["given"]).name or "."
    return escaped(f"{name}, {content.get('what', '')}".removesuffix(", "))


def rows_that_matter(rows: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Logits, loss, and the sub-step and gradient nearest to their bounds or farthest beyond."""
    found = [("logits", [row for row in rows if row["part"] in ("logits", LOGITS)])]
    found.append(("loss", [row for row in rows if row["part"] == "loss"]))
    steps = [row for row in rows if is_step(row["part"])]
    found.append(("worst sub-step", steps))
    found.append(("worst gradient", [row for row in rows if row["part"].startswith(GRADIENT)]))
    return [(named(name, worst(held)), worst(held)) for name, held in found if held]


def worst(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A failure where there is one, NaN before all, else what is nearest to its bound."""

    def badness(row: dict[str, Any]) -> tuple[bool, bool, float]:
        ratio = float(row["float64"]) / float(row["bound"])
        broken = ratio != ratio
        return not row["passed"], broken, 0.0 if broken else ratio

    return max(rows, key=badness)


def named(name: str, row: dict[str, Any]) -> str:
    part = row["part"]
    if not name.startswith("worst"):
        return name
    return f"{name}: {in_words(part) if is_step(part) else part.removeprefix('gradient of ')}"


def budget(formats: dict[str, Any]) -> list[str]:
    """The error of the logits in each number format, each side against its own float64."""
    rows = []
    for name, entry in formats.items():
        sides = {s.upper(): entry[s] for s in "ab" if isinstance(entry.get(s), dict)}
        for who, found in (sides or {"": entry}).items():
            numbers = [number(found.get(key)) for key in ("max_abs", "relative", "max_kl")]
            shares = [percent(found.get(key)) for key in ("top1", "top5")]
            rows.append((f"{name} {who}".strip(), *numbers, *shares))
    head = ("logits against float64", "max abs", "relative", "max KL", "top 1", "top 5")
    return [table(head, rows)] if rows else []


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(map(escaped, row)) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text that cannot end a cell or a line."""
    return " ".join(text.replace("|", "\\|").split())


def number(value: Any) -> str:
    return "" if value is None else f"{float(value):.1e}"


def percent(value: Any) -> str:
    return "" if value is None else f"{float(value):.2%}"


def word(row: dict[str, Any]) -> str:
    return "PASS" if row["passed"] else "FAIL"
