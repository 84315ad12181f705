"""How fast a run goes: the only numbers of it that the clock decides."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


def seconds_since(began: float) -> float:
    """Seconds since a reading of ``time.monotonic``, to the millisecond."""
    return round(time.monotonic() - began, 3)


class Speed:
    """Target tokens per second of training, without evaluations and saves."""

    def __init__(self) -> None:
        self._tokens, self._began = 0, time.monotonic()

    def add(self, tokens: int) -> None:
        """Count one step's tokens."""
        self._tokens += tokens

    def read(self) -> dict[str, float]:
        """The speed since the last reading; no rate where no token was counted."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = {"tokens_per_second": round(self._tokens / seconds, 1)} if self._tokens else {}
        self._tokens, self._began = 0, time.monotonic()
        return rate | {"seconds": round(seconds, 3)}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block's time out."""
        stopped = time.monotonic()
        yield
        self._began += time.monotonic() - stopped
