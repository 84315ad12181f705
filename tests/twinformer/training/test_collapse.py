"""An encoder that writes the same for every token of a sentence is noticed at validation."""

import numpy as np
import pytest
from numpy_backend import NumpyBackend
from small_training import MAKERS, SETTINGS
from training_cases import SMALL, metrics, run

from parity.twins.cases import config_of, inputs
from twinformer.training.evaluation.collapse import collapse_notes, token_spread

REAL = np.array([[1, 1, 0], [1, 1, 1]], bool)


def states(*rows) -> np.ndarray:
    return np.array(rows, np.float32)[..., None]


def test_token_spread_by_hand() -> None:
    found = token_spread(states([1, 3, 99], [6, 8, 7]), REAL)
    within = 1 + 1 + 1 + 1 + 0  # means 2 and 7
    total = 16 + 4 + 1 + 9 + 4  # mean 5; the padding's 99 counts nowhere
    assert found == pytest.approx((within / total) ** 0.5)


def test_the_same_for_every_token_is_zero_and_no_sentence_apart_is_one() -> None:
    assert token_spread(states([2, 2, 9], [5, 5, 5]), REAL) == 0
    assert token_spread(states([2, 4, 9], [2, 4, 3]), REAL) == pytest.approx(1)


def test_nothing_to_compare_is_no_collapse() -> None:
    assert token_spread(states([1, 3, 3], [2, 4, 4]), np.array([[1, 0, 0], [1, 0, 0]], bool)) == 1
    assert token_spread(states([1, 1, 1], [1, 1, 1]), REAL) == 1
    assert token_spread(states([1, 1.01, 1.02]), np.ones((1, 3), bool)) == 1
    assert token_spread(states([1, 2, np.nan]), np.zeros((1, 3), bool)) == 1
    assert token_spread(states([1, 3, np.nan], [6, 8, 7]), REAL) < 1
    assert token_spread(states([1, 2, 3]), np.zeros((1, 3), bool)) == 1


def test_the_note_begins_at_a_tenth() -> None:
    assert collapse_notes(None) == collapse_notes(0.1) == []
    (note,) = collapse_notes(0.03)
    assert "spread 0.03" in note and "--init-gain" in note


@pytest.mark.usefixtures("float64")
def test_both_twins_encode_alike() -> None:
    config = config_of({"norm_position": "post"})
    source = inputs(config)[0].astype(np.int32)
    ours, theirs = (MAKERS[name](config, SETTINGS).encode(source) for name in MAKERS)
    assert ours.shape == (*source.shape, config.hidden_dim)
    assert np.abs(ours - theirs).max() <= 1e-11


def test_a_collapsed_encoder_is_said_and_recorded(place, quick, capsys, monkeypatch) -> None:
    def of_first(self, ids: np.ndarray) -> np.ndarray:
        return np.broadcast_to(ids[:, :1, None], (*ids.shape, 1))

    monkeypatch.setattr(NumpyBackend, "encode", of_first)
    assert run("numpy", [*SMALL, "--name", "a"]) == 0
    assert capsys.readouterr().out.count("(spread 0.00 of 1)") == 3
    found = [m["token_spread"] for m in metrics(place / "runs/a") if m["kind"] == "evaluation"]
    assert found == [0, 0, 0]


def test_a_sound_encoder_is_not_warned_of(place, quick, capsys) -> None:
    assert run("numpy", [*SMALL, "--name", "a"]) == 0
    assert "warning" not in capsys.readouterr().out
    found = [m["token_spread"] for m in metrics(place / "runs/a") if m["kind"] == "evaluation"]
    assert min(found) > 0.1
