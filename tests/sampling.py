"""Which cases of the tests run without --thorough.

@pytest.mark.thorough       none, of a test or of a case
@pytest.mark.sampled(n)     n cases of a parametrised test, evenly spread, with the first and
                            the last of them
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def spread(count: int, wanted: int) -> set[int]:
    """Indices of so many of ``count`` cases, or of all where they are fewer."""
    wanted = min(wanted, count)
    return {number * (count - 1) // max(wanted - 1, 1) for number in range(wanted)}


def left_out(items: Iterable[pytest.Item]) -> set[pytest.Item]:
    """What is for --thorough alone."""
    items = list(items)
    alone = {item for item in items if item.get_closest_marker("thorough")}
    cases: dict[tuple[object, int], list[pytest.Item]] = {}
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker and item not in alone:
            test = item.nodeid.partition("[")[0]
            cases.setdefault((test, *marker.args), []).append(item)
    for (_, wanted), alike in cases.items():
        kept = spread(len(alike), wanted)
        alone |= {item for index, item in enumerate(alike) if index not in kept}
    return alone
