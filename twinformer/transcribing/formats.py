"""Transcripts as text, as subtitles, as a table, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from training_recipe.transcription.transcripts import Segment, Transcript

ONE_LINE = str.maketrans("\r\n\t", "   ")
ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def clock(seconds: float, mark: str, hours: bool) -> str:
    """A time as in 01:02:03.456; without ``hours`` these are left out where there are none."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, seconds = divmod(whole, 60)
    over, minutes = divmod(minutes, 60)
    before = f"{over:02d}:" if hours or over else ""
    return f"{before}{minutes:02d}:{seconds:02d}{mark}{milliseconds:03d}"


def said(segment: Segment) -> str:
    return segment.text.translate(ONE_LINE).strip()


def as_text(transcript: Transcript) -> str:
    """A line for each segment."""
    return "".join(f"{said(segment)}\n" for segment in transcript.segments)


def as_timed_text(transcript: Transcript) -> str:
    """A line for each segment, its times before it."""
    return "".join(
        f"[{clock(each.start, '.', False)} --> {clock(each.end, '.', False)}] {said(each)}\n"
        for each in transcript.segments
    )


def as_srt(transcript: Transcript) -> str:
    """SubRip's subtitles."""
    cues = _cues(transcript, ",", True, lambda text: text.replace("-->", "->"))
    return "".join(f"{number}\n{cue}\n" for number, cue in enumerate(cues, 1))


def as_vtt(transcript: Transcript) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1."""
    cues = _cues(transcript, ".", False, lambda text: text.translate(ESCAPED))
    return "WEBVTT\n\n" + "".join(f"{cue}\n" for cue in cues)


def _cues(
    transcript: Transcript, mark: str, hours: bool, write: Callable[[str], str]
) -> Iterator[str]:
    for each in transcript.segments:
        times = f"{clock(each.start, mark, hours)} --> {clock(each.end, mark, hours)}"
        yield f"{times}\n{write(said(each))}\n"


def as_tsv(transcript: Transcript) -> str:
    """A table of milliseconds and texts."""
    rows = (
        f"{round(each.start * 1000)}\t{round(each.end * 1000)}\t{said(each)}\n"
        for each in transcript.segments
    )
    return "start\tend\ttext\n" + "".join(rows)


def as_json(transcript: Transcript) -> str:
    """All that is known, on one line."""
    content = {"path": transcript.path, **transcript.to_json()}
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": as_text,
    "srt": as_srt,
    "vtt": as_vtt,
    "tsv": as_tsv,
    "json": as_json,
}
TIMED = ("srt", "vtt", "tsv", "json")  # those that say when something was said
