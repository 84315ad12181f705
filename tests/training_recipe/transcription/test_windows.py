"""Pieces of outputs and seeking, by hand: the rules of the published program."""

import pytest

from training_recipe.transcription.windows import Piece, pieces

T = 1000  # the timestamp of 0


def piece(start: int, end: int, *tokens: int) -> Piece:
    return Piece(start, end, tokens)


@pytest.mark.parametrize(
    ("tokens", "found", "ahead"),
    [
        # no timestamp at all, and one that says nothing: the whole window
        ((5, 6), [piece(0, 650, 5, 6)], 1300),
        ((T, 5, 6), [piece(0, 650, T, 5, 6)], 1300),
        ((), [piece(0, 650)], 1300),
        # a beginning and an end
        ((T, 5, T + 40), [piece(0, 40, T, 5, T + 40)], 1300),
        # two stretches, the second complete: the rest of the window is passed over
        (
            (T, 5, T + 40, T + 50, 6, T + 90),
            [piece(0, 40, T, 5, T + 40), piece(50, 90, T + 50, 6, T + 90)],
            1300,
        ),
        # the second one is not complete: go on where the first ends
        ((T, 5, T + 40, T + 50, 6), [piece(0, 40, T, 5, T + 40)], 80),
        # ends with a pair: go on at its first
        (
            (T + 3, 5, T + 40, T + 40, 6, T + 90, T + 90),
            [piece(3, 40, T + 3, 5, T + 40), piece(40, 90, T + 40, 6, T + 90)],
            180,
        ),
    ],
)
def test_pieces(tokens, found, ahead):
    assert pieces(tokens, T, 1300) == (found, ahead)


def test_a_rest_that_nobody_hears_again():
    tokens = (T, 5, T + 40, T + 50, 6)
    expected = [piece(0, 40, T, 5, T + 40), piece(50, 650, T + 50, 6)]
    assert pieces(tokens, T, 1300, keep_rest=True) == (expected, 1300)


def test_an_odd_output_goes_on_all_the_same():
    assert pieces((T, T), T, 1300)[1] == 1300
