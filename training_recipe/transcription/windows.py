"""What the output for a window says of times, and where the next window begins.

Radford et al. 2022, section 3.8, and the program that was published with it. A window is some
frames of 10 ms; timestamps count positions of 20 ms, which are two frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FRAMES_A_POSITION = 2


@dataclass(frozen=True)
class Piece:
    """Tokens, their timestamps included, between two positions of a window."""

    start: int
    end: int
    tokens: tuple[int, ...]


def pieces(
    tokens: Sequence[int], first: int, frames: int, keep_rest: bool = False
) -> tuple[list[Piece], int]:
    """The pieces of the output for a window of ``frames``, and how many frames to go on by.

    ``first`` is the timestamp of 0. Pieces end between adjacent timestamps. Tokens that follow the
    last such place have no end: they are left out, and the next window begins before them; unless
    ``keep_rest`` says that they go to the end of the window. An output without such a place is one
    piece.
    """
    stamp = [token >= first for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if stamp[i - 1] and stamp[i]]
    if not cuts:
        return [_whole(tokens, first, frames)], frames
    ends_alone = stamp[-2:] == [False, True]
    places = [0, *cuts, *([len(tokens)] if ends_alone else [])]
    found = [
        Piece(tokens[a] - first, tokens[b - 1] - first, tuple(tokens[a:b]))
        for a, b in zip(places, places[1:], strict=False)
    ]
    if ends_alone:
        return found, frames
    if keep_rest:
        begin = tokens[cuts[-1]] - first
        rest = Piece(begin, max(begin, frames // FRAMES_A_POSITION), tuple(tokens[cuts[-1] :]))
        return [*found, rest], frames
    return found, (tokens[cuts[-1] - 1] - first) * FRAMES_A_POSITION or frames


def _whole(tokens: Sequence[int], first: int, frames: int) -> Piece:
    """All of an output, which ends where its last timestamp says, or with the window."""
    last = max((i for i, token in enumerate(tokens) if token >= first), default=None)
    said = 0 if last is None else tokens[last] - first
    return Piece(0, said or frames // FRAMES_A_POSITION, tuple(tokens))
