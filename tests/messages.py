"""What a message must name, however it is worded."""

import re
from collections.abc import Callable, Iterable


def says(given: object, *parts: object) -> None:
    """One line of a text or an error, or one entry of a list, holds every part.

    A part is no piece of a longer word or number: 2 is not in 12, and pad_id not in pad_ids.
    """
    __tracebackhide__ = True
    listed = isinstance(given, Iterable) and not isinstance(given, str)
    lines = [str(line) for line in given] if listed else str(given).splitlines()
    lacking = [[str(p) for p in parts if not _holds(line, str(p))] for line in lines]
    if not lacking or all(lacking):
        nearest = min(lacking, key=len, default=[str(part) for part in parts])
        raise AssertionError("\n  ".join([f"no line has all of {parts}, but {nearest} of", *lines]))


def saying(*parts: object) -> Callable[[BaseException], bool]:
    """The ``check`` of pytest.raises: the error says so."""

    def check(error: BaseException) -> bool:
        __tracebackhide__ = True
        says(error, *parts)
        return True

    return check


def faults_say(faults: Iterable[str], *expected: tuple[object, ...]) -> None:
    """As many faults as expected, each with its parts, in their order."""
    __tracebackhide__ = True
    found = list(faults)
    assert len(found) == len(expected), f"{len(found)} faults, not {len(expected)}: {found}"
    for fault, parts in zip(found, expected, strict=True):
        says([fault], *parts)


def _holds(line: str, part: str) -> bool:
    before = r"(?<!\w)" if part[0].isalnum() else ""
    before += r"(?<!\d[.,])" if part[0].isdigit() else ""
    after = r"(?!\w)" if part[-1].isalnum() else ""
    after += r"(?![.,]\d)" if part[-1].isdigit() else ""
    return re.search(before + re.escape(part) + after, line) is not None
