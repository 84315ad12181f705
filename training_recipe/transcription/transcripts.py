"""What was said in a recording, and when."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording, from ``start`` to ``end`` in seconds, and what is said in it.

    ``tokens`` are those of the text and its timestamps. What follows describes the whole window
    that the segment is a part of: the mean log probability of its tokens (natural), how many times
    shorter zlib makes its text, the probability that nothing is said in it, and the temperature
    that wrote it.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    temperature: float


@dataclass(frozen=True)
class Transcript:
    """All segments of a recording of so many ``seconds``, in order.

    ``language`` is a code, None where nothing was heard; ``language_probability`` that of the
    language where it was detected. ``notes`` say what there is to say of the file.
    """

    path: str
    segments: tuple[Segment, ...]
    language: str | None
    language_probability: float | None
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The texts of all segments, one after another."""
        return "".join(segment.text for segment in self.segments)

    def to_json(self) -> dict[str, Any]:
        """What a JSON file of it holds: text, segments with their numbers, language."""
        segments = [{"id": i, **asdict(each)} for i, each in enumerate(self.segments)]
        known = {"language": self.language, "language_probability": self.language_probability}
        return {"text": self.text, "segments": segments, **known, "duration": self.seconds}
