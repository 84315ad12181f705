"""Transcripts in every format, by hand."""

import json

from training_recipe.transcription.transcripts import Segment, Transcript
from twinformer.transcribing.formats import FORMATS, as_timed_text, clock


def segment(start: float, end: float, text: str) -> Segment:
    return Segment(start, end, text, (1, 2), -0.25, 1.5, 0.125, 0.0)


TALK = Transcript(
    "talk.wav",
    (segment(0.0, 2.5, " Q&A: a --> b"), segment(3599.999, 3661.02, " line\none\ttab")),
    "en",
    0.5,
    3662.0,
)

SRT = """\
1
00:00:00,000 --> 00:00:02,500
Q&A: a -> b

2
00:59:59,999 --> 01:01:01,020
line one tab

"""

VTT = """\
WEBVTT

00:00.000 --> 00:02.500
Q&amp;A: a --&gt; b

59:59.999 --> 01:01:01.020
line one tab

"""


def test_text_subtitles_and_tables():
    assert FORMATS["txt"](TALK) == "Q&A: a --> b\nline one tab\n"
    assert FORMATS["srt"](TALK) == SRT
    assert FORMATS["vtt"](TALK) == VTT
    rows = "start\tend\ttext\n0\t2500\tQ&A: a --> b\n3599999\t3661020\tline one tab\n"
    assert FORMATS["tsv"](TALK) == rows
    timed = as_timed_text(TALK).splitlines()
    assert timed[0] == "[00:00.000 --> 00:02.500] Q&A: a --> b"


def test_json_holds_everything_on_one_line():
    text = FORMATS["json"](TALK)
    assert text.count("\n") == 1
    content = json.loads(text)
    assert content["text"] == TALK.text == " Q&A: a --> b line\none\ttab"
    assert (content["language"], content["duration"]) == ("en", 3662.0)
    assert content["segments"][0] == {
        "id": 0, "start": 0.0, "end": 2.5, "text": " Q&A: a --> b", "tokens": [1, 2],
        "avg_logprob": -0.25, "compression_ratio": 1.5, "no_speech_prob": 0.125,
        "temperature": 0.0,
    }  # fmt: skip


def test_nothing_was_said():
    nothing = Transcript("a.wav", (), None, None, 1.0)
    written = {name: write(nothing) for name, write in FORMATS.items()}
    assert (written["txt"], written["srt"], written["vtt"]) == ("", "", "WEBVTT\n\n")
    assert json.loads(written["json"])["segments"] == []


def test_clocks_round_to_milliseconds():
    assert clock(0.9996, ".", False) == "00:01.000"
    assert clock(3599.9996, ",", True) == "01:00:00,000"
    assert clock(100 * 3600, ".", False) == "100:00:00.000"
