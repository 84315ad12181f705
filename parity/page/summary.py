"""The top of a page: the verdict, both sides, what differs first and what explains it."""

from __future__ import annotations

from collections.abc import Iterator

from parity.comparison.report import Departure, Report, Row, SideSummary
from parity.comparison.text import shown
from parity.page.markup import Markup, element
from parity.page.numbers import exact, number, share
from parity.page.table import FIRST, anchor, first_to_differ, place_of, small_table, terms

MOST_CAUSES = 5
ROLES = {"A": "the model to trust", "B": "the model to check"}


def header(report: Report) -> Markup:
    """The verdict, A and B, and how much was compared."""
    word, heading = headings(report)
    sides = (side_card(name, side) for name, side in (("A", report.a), ("B", report.b)))
    return element(
        "header",
        element("p", "twinformer parity", class_="kicker"),
        element("h1", element("span", word, class_="badge"), f" {heading}"),
        element("p", reason(report), class_="reason"),
        element("div", *sides, class_="sides"),
        facts(report),
        class_="pass" if report.same else "fail",
    )


def headings(report: Report) -> tuple[str, str]:
    """The verdict in a word and in a line."""
    return ("PASS", "Same function") if report.same else ("FAIL", "Not the same function")


def reason(report: Report) -> str:
    """The rest of the verdict, which begins with the heading."""
    heading = headings(report)[1]
    return report.verdict[len(heading) :].lstrip(":; ")


def side_card(name: str, side: SideSummary) -> Markup:
    return element(
        "section",
        element("h2", element("span", name, class_="letter"), f" {ROLES[name]}"),
        element("p", side.given, class_="given"),
        element("p", f"{side.what}; {side.framework} on {side.device}", class_="what"),
        class_="side",
    )


def facts(report: Report) -> Markup:
    """How many rows fail, and how far the logits are apart in float64."""
    failed = sum(not row.passed for row in report.rows)
    found = {
        "compared": f"{len(report.rows):,}",
        "differ": f"{failed:,}",
        "logits apart, float64": number(report.agreement.max_abs),
        "same best token": share(report.agreement.top1),
    }
    return element("div", terms(found), class_="facts")


def difference(report: Report) -> Markup | None:
    """The first row to differ, the numbers of both sides, and the cause."""
    failed = first_to_differ(report)
    if failed is None:
        return None
    return element(
        "section",
        element("h2", "First to differ"),
        element("p", element("a", shown(failed.part), href=f"#{FIRST}"), class_="lead"),
        element("p", element("code", failed.part)),
        *departure(report, failed),
        *explanation(report),
        class_="difference", id="difference",
    )  # fmt: skip


def departure(report: Report, failed: Row) -> Iterator[Markup]:
    """How far apart, and, where a sub-step differs, A's number and B's in one place."""
    first = report.first
    apart = {
        "difference": number(failed.float64, 3),
        "rounding is at most": number(failed.bound, 3),
    }
    if first is None:
        yield terms(apart)
    elif first.part == failed.part:
        yield terms({**both(first), **apart})
    else:
        yield terms(apart)
        link = element("a", first.in_words, href=f"#{anchor(place_of(report, first.part))}")
        yield element("p", "The first sub-step to differ: ", link)
        yield terms({**both(first), "difference": number(first.difference, 3)})


def both(first: Departure) -> dict[str, str]:
    """Both numbers, and where they stand in the arrays of a batch."""
    if not first.at:
        return {"A and B": "have other shapes"}
    at = ", ".join(map(str, first.at))
    return {"A": exact(first.a), "B": exact(first.b), "at": f"[{at}] of batch {first.batch + 1}"}


def explanation(report: Report) -> Iterator[Markup]:
    """What is behind the difference, or that nothing is known of it."""
    causes = report.causes
    if causes:
        heading = "What explains all of it" if report.first else "What explains it"
        yield element("h3", heading)
        said = (element("li", cause.in_words) for cause in causes[:MOST_CAUSES])
        yield element("ul", *said, class_="causes")
    elif report.first is not None:
        unknown = "no cause was looked for" if causes is None else report.unexplained
        yield element("h3", "What explains it")
        yield element("p", unknown)


def different_settings(report: Report) -> Markup | None:
    found = {**report.different_settings, **report.not_judged}
    if not found:
        return None
    rows = [
        (element("code", name), repr(one), repr(other), ("yes", "no")[name in report.not_judged])
        for name, (one, other) in found.items()
    ]
    table = small_table(("setting", "A", "B", "judged"), rows)
    return element("section", element("h2", "Different in their configs"), table)


def notes(report: Report) -> Markup | None:
    """What could not be compared, and why."""
    if not report.notes:
        return None
    held = element("ul", *(element("li", note) for note in report.notes))
    return element("section", element("h2", "What is left out"), held, class_="notes")
