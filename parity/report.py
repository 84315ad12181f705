"""A report in text: the table bottom-up, the verdict, and on a failure what is behind it."""

from __future__ import annotations

from typing import Any

from parity.substeps import in_words

GRADIENT = "gradient of "


def as_text(report: dict[str, Any], full: bool = False) -> str:
    """Sides, table, budget, verdict; ``full`` shows every sub-step and every gradient."""
    lines = [
        f"A  {report['a']['given']}: {report['a']['what']}",
        f"B  {report['b']['given']}: {report['b']['what']}",
    ]
    for field, (one, other) in report["different_settings"].items():
        lines.append(f"different in their configs: {field}: A {one!r}, B {other!r}")
    lines += report.get("notes", [])
    rows = report["rows"] if full else grouped(report["rows"])
    lines += ["", *table(rows, list(report["budget"])), ""]
    lines += budget_lines(report["budget"])
    lines += departure_lines(report)
    return "\n".join([*lines, f"{'PASS' if report['passed'] else 'FAIL'}: {report['verdict']}"])


def grouped(rows: list[dict]) -> list[dict]:
    """The worst of each attention, feed-forward, norm, and of the gradients of each layer."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(group_of(row["part"]), []).append(row)
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
    return part if part == "loss" else in_words(name.removesuffix(" input"))


def worst_of(name: str, members: list[dict]) -> dict:
    """One row for several: a failure if there is one, else the one nearest to its bound."""
    chosen = max(members, key=lambda row: (not row["passed"], row["float64"] / row["bound"]))
    errors: dict[str, float] = {}
    for row in members:
        for precision, error in row["errors"].items():
            errors[precision] = max(errors.get(precision, 0.0), error)
    return {**chosen, "part": name, "errors": {**errors, "float64": chosen["float64"]}}


def table(rows: list[dict], precisions: list[str]) -> list[str]:
    names = [shown(row["part"]) for row in rows]
    width = max(map(len, names))
    head = f"{'largest difference of':<{width}}  {'float64':>9}{'bound':>10}" + "".join(
        f"{name:>11}" for name in precisions
    )
    lines = [head]
    for name, row in zip(names, rows, strict=True):
        others = "".join(
            f"{row['errors'][p]:>11.1e}" if p in row["errors"] else " " * 11 for p in precisions
        )
        verdict = "PASS" if row["passed"] else "FAIL"
        lines.append(
            f"{name:<{width}}  {row['float64']:>9.1e}{row['bound']:>10.0e}{others}  {verdict}"
        )
    return lines


def shown(part: str) -> str:
    return in_words(part) if part.startswith(("encoder.", "decoder.")) else part


def budget_lines(budget: dict[str, Any]) -> list[str]:
    """What each precision does to the logits, beside the side's own float64."""
    if not budget:
        return []
    lines = [
        f"{'logits against float64':<24}{'max abs':>10}{'relative':>10}{'max KL':>10}"
        f"{'top 1':>9}{'top 5':>9}"
    ]
    for precision, found in budget.items():
        for side in (name for name in "ab" if name in found):
            m = found[side]
            lines.append(
                f"{precision + ', ' + side.upper():<24}{m['max_abs']:>10.1e}{m['relative']:>10.1e}"
                f"{m['max_kl']:>10.1e}{m['top1']:>9.2%}{m['top5']:>9.2%}"
            )
            if "overflow" in m:
                lines.append(f"  NaN or infinite numbers, first in {m['overflow']}")
    return [*lines, ""]


def departure_lines(report: dict[str, Any]) -> list[str]:
    """The first sub-step that departs with the numbers of both sides, and its causes."""
    first, causes = report.get("first"), report.get("causes", [])
    if not first:
        return [f"what explains it: {cause['in_words']}" for cause in causes]
    at = ", ".join(map(str, first["at"]))
    lines = [
        f"first to differ: {first['in_words']}, at [{at}]: A {first['a']:.17g}, B {first['b']:.17g}"
    ]
    if causes:
        lines += [f"what explains all of it: {cause['in_words']}" for cause in causes[:5]]
    elif "causes" in report:
        lines.append("no single known slip explains it")
    return [*lines, ""]
