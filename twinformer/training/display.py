"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from training_recipe.runs.metrics import Record
from transformer_spec.door import close_standard_output, is_unread
from transformer_spec.errors import printable

SMALL_SCREEN = (80, 24)
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Display:
    """Shows steps, log records and messages; the bar goes to stderr, everything else to stdout.

    Of several devices it also says the speed of each. ``unread`` is called where stdout is a pipe
    or a terminal that nobody reads any more; nothing is said from then on.
    """

    def __init__(
        self,
        steps: int,
        done: int,
        devices: int = 1,
        bar: bool = True,
        unread: Callable[[], object] = lambda: None,
    ) -> None:
        self.steps, self.devices, self.unread = steps, devices, unread
        self._started = time.monotonic()
        self._first = done
        self._bar: Any = _bar(steps, done) if bar and sys.stderr.isatty() else None

    def step(self) -> None:
        """Count one step."""
        if self._bar is not None:
            self._bar.update()

    def log(self, record: Record) -> None:
        """Show the numbers of a log step."""
        loss, rate = f"loss {record['loss']:.4f}", f"{record['learning_rate']:.2e}"
        speed = self.speed(record["speed"].get("tokens_per_second"))
        if self._bar is not None:
            self._bar.set_postfix_str(f"{loss}, {speed}, lr {rate}")
        else:
            left = clock(self._seconds_left(record["step"]))
            numbers = f"{loss}  {speed}  learning rate {rate}"
            self.line(f"step {record['step']}/{self.steps}  {numbers}  {left} left")

    def speed(self, tokens: float | None) -> str:
        """Target tokens a second in words; None is for steps without any."""
        if tokens is None:
            return "not trained"
        each = f" ({tokens / self.devices:,.0f} a device)" if self.devices > 1 else ""
        return f"{tokens:,.0f} tokens/s{each}"

    def _seconds_left(self, step: int) -> float:
        per_step = (time.monotonic() - self._started) / max(step - self._first, 1)
        return per_step * (self.steps - step)

    def line(self, text: str) -> None:
        """Print one message, above the bar if there is one."""
        text = as_far_as_encoded(printable(text), sys.stdout)
        try:
            if self._bar is not None:
                self._bar.write(text, file=sys.stdout)
            else:
                print(text, flush=True)
        except OSError as error:
            if not is_unread(error):
                raise
            close_standard_output()
            self.unread()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


class Silent(Display):
    """Shows nothing: that of the first process does."""

    def __init__(self) -> None:
        super().__init__(0, 0, bar=False)

    def log(self, record: Record) -> None:
        """Show nothing."""

    def line(self, text: str) -> None:
        """Show nothing."""


def as_far_as_encoded(text: str, stream: TextIO | None) -> str:
    """A text in which what a stream's encoding lacks is written as \\uXXXX."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _bar(steps: int, done: int) -> Any:
    from tqdm import tqdm

    # A terminal may say that it has no rows or columns, which tqdm would take at its word.
    known = all(os.get_terminal_size(sys.stderr.fileno()))
    return tqdm(
        total=steps,
        initial=done,
        bar_format=BAR,
        dynamic_ncols=known,
        ncols=None if known else SMALL_SCREEN[0],
        nrows=None if known else SMALL_SCREEN[1],
    )


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(rows: list[tuple[str, ...]], indent: str = "  ") -> list[str]:
    """Rows as lines of left-aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
