"""When an output is thought to be wrong and is written again, and when there was no speech at all.

Radford et al. 2022, section 4.5, with the numbers of the program that was published with it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
FORGETTING = 0.5  # above this temperature what was written is no context of what follows


@dataclass(frozen=True)
class Outcome:
    """The output for a window: its tokens without the end, and how likely it is to be right.

    ``mean_log_probability`` is that of its tokens, the end counted; ``no_speech`` the probability
    that nothing is said.
    """

    tokens: tuple[int, ...]
    mean_log_probability: float
    compression_ratio: float
    no_speech: float
    temperature: float


@dataclass(frozen=True)
class Thresholds:
    """Above and below which an output is refused; None: it never is for that reason.

    It is above ``compression_ratio``, how many times shorter zlib makes its text, or below
    ``log_probability``, the mean of its tokens (natural). Unlikely ones are silence above
    ``no_speech``, a probability. Radford et al. 2022, section 4.5.
    """

    compression_ratio: float | None = 2.4
    log_probability: float | None = -1.0
    no_speech: float | None = 0.6

    def is_silence(self, outcome: Outcome) -> bool:
        """Whether an output is passed over: no speech is likely, and the output is not."""
        if self.no_speech is None or outcome.no_speech <= self.no_speech:
            return False
        least = self.log_probability
        return least is None or outcome.mean_log_probability <= least

    def wants_another(self, outcome: Outcome) -> bool:
        """Whether an output is to be written again at a higher temperature."""
        most, least = self.compression_ratio, self.log_probability
        repeats = most is not None and outcome.compression_ratio > most
        unlikely = least is not None and outcome.mean_log_probability < least
        silent = unlikely and self.no_speech is not None and outcome.no_speech > self.no_speech
        return (repeats or unlikely) and not silent


def compression_ratio(text: str) -> float:
    """How many times shorter zlib makes a text, in UTF-8; what repeats itself gets very short."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))
