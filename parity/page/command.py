"""The command that compares the same two models in the same way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from parity.comparison.report import Report
from parity.comparison.settings import Settings

PROGRAM = "python -m parity"
BEGINNING = Settings()
FILES = ("text", "ids", "audio", "features")


def command_of(report: Report) -> str:
    """What to type, quoted for a shell."""
    words = [report.a.given, report.b.given, *flags_of(report.settings)]
    return f"{PROGRAM} {shlex.join(words)}"


def flags_of(settings: Settings) -> Iterator[str]:
    """The flags of what is not as it is without any."""
    for name in FILES:
        if (path := getattr(settings, name)) is not None:
            yield from (f"--{name}", path)
    for flag, value in (("length", settings.longest), ("max-ram", settings.max_ram)):
        if value is not None:
            yield from (f"--{flag}", f"{value}")
    if settings.seed != BEGINNING.seed:
        yield from ("--seed", f"{settings.seed}")
    if settings.padding != BEGINNING.padding:
        yield from ("--padding", settings.padding)
    for flag in ("gradients", "explain", "verify"):
        if not getattr(settings, flag):
            yield f"--no-{flag}"
    for flag, pair, usual in (
        ("framework", settings.frameworks, BEGINNING.frameworks),
        ("device", settings.devices, BEGINNING.devices),
    ):
        for side, value, same in zip("ab", pair, usual, strict=True):
            if value is not None and value != same:
                yield from (f"--{side}-{flag}", value)
    if settings.precisions != BEGINNING.precisions:
        yield from ("--precision", *settings.precisions)
