"""When an output is written again and when it is passed over, at both sides of each threshold."""

from dataclasses import replace

import pytest

from training_recipe.transcription.fallback import Outcome, Thresholds, compression_ratio

GOOD = Outcome((1, 2), -0.3, 1.2, 0.1, 0.0)


@pytest.mark.parametrize(
    ("changes", "again", "silence"),
    [
        ({}, False, False),
        ({"compression_ratio": 2.4}, False, False),
        ({"compression_ratio": 2.41}, True, False),
        ({"mean_log_probability": -1.0}, False, False),
        ({"mean_log_probability": -1.01}, True, False),
        ({"no_speech": 0.7}, False, False),
        ({"no_speech": 0.7, "mean_log_probability": -1.0}, False, True),
        ({"no_speech": 0.7, "mean_log_probability": -1.01}, False, True),
        ({"no_speech": 0.6, "mean_log_probability": -1.01}, True, False),
        ({"no_speech": 0.7, "compression_ratio": 3.0}, True, False),
    ],
)
def test_thresholds(changes, again, silence):
    outcome, thresholds = replace(GOOD, **changes), Thresholds()
    assert thresholds.wants_another(outcome) == again
    assert thresholds.is_silence(outcome) == silence


def test_none_refuses_nothing():
    bad = replace(GOOD, compression_ratio=9, mean_log_probability=-9, no_speech=0.9)
    assert not Thresholds(None, None, None).wants_another(bad)
    assert not Thresholds(None, None, None).is_silence(bad)
    assert Thresholds(None, None).is_silence(bad)


def test_the_ratio_is_of_the_text_in_utf_8():
    assert compression_ratio("la " * 99) > 2.4 > compression_ratio("And so, my fellow Americans")
    assert compression_ratio("é" * 10) > compression_ratio("e" * 10)
    assert compression_ratio("") == 0.0
