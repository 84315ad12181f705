"""A report in text: the table bottom-up, what is behind a failure, and the verdict as last line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from parity.comparison.report import NOT_JUDGED, Report, Rounding, Row
from parity.forward.measures import FLOAT32_BOUND
from parity.forward.substeps import in_words, is_step

GRADIENT = "gradient of "
EVERY_ROW = "every row of "
FEATURES = "log-mel features"


def as_text(report: Report, full: bool = False) -> str:
    """Sides, table, budget, what is behind a failure; ``full`` shows every row."""
    sides = (("A", report.a), ("B", report.b))
    lines = [f"{name}  {side.given}: {side.what}" for name, side in sides]
    for field, (one, other) in {**report.different_settings, **report.not_judged}.items():
        how = f", {NOT_JUDGED}" if field in report.not_judged else ""
        lines.append(f"different in their configs{how}: {field}: A {one!r}, B {other!r}")
    rows = report.rows if full else grouped(report.rows)
    lines += [*report.notes, "", *table(rows, list(report.budget)), ""]
    return "\n".join([*lines, *budget_lines(report.budget), *departure_lines(report)]).rstrip()


def verdict_line(report: Report) -> str:
    return f"{'PASS' if report.same else 'FAIL'}: {report.verdict}"


def grouped(rows: Iterable[Row]) -> list[Row]:
    """The worst of each attention, feed-forward, norm, and of the gradients of each layer."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_of(row.part), []).append(row)
    return [worst_of(name, members) for name, members in groups.items()]


def group_of(part: str) -> str:
    gradient = part.startswith(GRADIENT)
    name = part.removeprefix(GRADIENT)
    pieces = name.removesuffix(" input").split(".")
    if len(pieces) > 3 and pieces[1] in ("enc_layers", "dec_layers"):
        layer = f"{pieces[0]} layer {int(pieces[2]) + 1}"
        return f"gradients of {layer}" if gradient else f"{layer}, {pieces[3]}"
    if gradient:
        return "gradients of tables, norms and output"
    own = part == "loss" or part.startswith((EVERY_ROW, FEATURES))
    return part if own else in_words(name.removesuffix(" input"))


def worst_of(name: str, members: Sequence[Row]) -> Row:
    """One row for several: a failure if there is one, else the one nearest to its bound."""
    chosen = max(members, key=lambda row: row.nearness)
    errors: dict[str, float] = {}
    for row in members:
        for precision, error in row.errors.items():
            errors[precision] = max(errors.get(precision, 0.0), error)
    return replace(chosen, part=name, errors=errors)


def table(rows: Iterable[Row], precisions: Sequence[str]) -> list[str]:
    named = {shown(row.part): row for row in rows}
    width = max(map(len, named))
    others = "".join(f"{name:>11}" for name in precisions)
    lines = [f"{'largest difference of':<{width}}  {'float64':>10}{'bound':>11}{others}"]
    for name, row in named.items():
        errors = "".join(
            f"{row.errors[p]:>11.1e}" if p in row.errors else " " * 11 for p in precisions
        )
        numbers = f"{row.float64:>10.3e}{row.bound:>11.3e}{errors}"
        lines.append(f"{name:<{width}}  {numbers}  {'PASS' if row.passed else 'FAIL'}")
    return lines


def shown(part: str) -> str:
    return in_words(part) if is_step(part) else part


def budget_lines(budget: Mapping[str, Rounding]) -> list[str]:
    """What each precision does to the logits, beside the side's own float64."""
    if not budget:
        return []
    lines = [
        f"{'logits against float64':<24}{'max abs':>10}{'relative':>10}{'max KL':>10}"
        f"{'top 1':>9}{'top 5':>9}"
    ]
    for precision, rounding in budget.items():
        for side, found in rounding.sides.items():
            lines.append(
                f"{precision + ', ' + side:<24}{found.max_abs:>10.1e}{found.relative:>10.1e}"
                f"{found.max_kl:>10.1e}{found.top1:>9.2%}{found.top5:>9.2%}"
            )
            if found.overflow:
                lines.append(f"  NaN or infinite numbers, first in {found.overflow}")
    return [*lines, *spread_lines(budget), ""]


def spread_lines(budget: Mapping[str, Rounding]) -> list[str]:
    """What float32 rounds beside what it may: over the spread of logits that have more than 1."""
    if "float32" not in budget:
        return []
    sides = budget["float32"].sides
    spread = max(side.spread for side in sides.values())
    errors = ", ".join(f"{name} {side.over_spread:.1e}" for name, side in sides.items())
    over = f" over the logits' spread of {spread:.1f}" if spread > 1 else ""
    within = all(side.over_spread <= FLOAT32_BOUND for side in sides.values())
    word = "within" if within else "beyond"
    return [f"float32{over}: {errors}, {word} the bound of {FLOAT32_BOUND:.0e}"]


def departure_lines(report: Report) -> list[str]:
    """The first sub-step that departs with the numbers of both sides, and its causes."""
    first, causes = report.first, report.causes
    if first is None:
        return [f"what explains it: {cause.in_words}" for cause in causes or ()]
    at = ", ".join(map(str, first.at))
    lines = [f"first to differ: {first.in_words}, at [{at}]: A {first.a:.17g}, B {first.b:.17g}"]
    if causes:
        return [*lines, *(f"what explains all of it: {cause.in_words}" for cause in causes[:5])]
    return lines if causes is None else [*lines, report.unexplained]
