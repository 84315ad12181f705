"""Flat arrays of ids: the lists that went in, and the batches that lists gave before."""

import hashlib
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from training_recipe.batching import shapes
from training_recipe.batching.batches import BatchPlan, drop_long
from training_recipe.batching.encoded import fingerprint
from training_recipe.batching.ids import BLOCK, IdPair, Ids, Pairs, Texts, either
from training_recipe.text.frames import Frame

AROUND = Frame((9, 2), (3,)), Frame((), (2, 8))
ENDED = Frame(), Frame()
DRAWN = [
    ([n + 10, *[5] * (n * 7 % 23)], [n + 10, *[6] * (n * 11 % 19)][: n % 5 * 9])
    for n in range(2 * BLOCK + 3)
]
# Of the words and the texts below, as lists of lists gave them.
RECORDED = {
    "words": "0d3860f78010f7f31ce41b985bd3c5d193f20901c7a65131a562322f3df0ef72",
    "texts": "cc98b724f22cebf3533033a73a21bbe29a5f58a0c8f770c973e784e1f87c2d76",
    "cut anew": "fcde3854e1131f0a28203d3ccca2eec9d533133665e7e447c013aa62f49924ef",
}


def digest(plan: BatchPlan) -> str:
    """A hash of all batches of two epochs."""
    sum_ = hashlib.sha256()
    for number in range(1, 2 * plan.batches_per_epoch + 1):
        batch = plan.batch(number)
        for array in batch.arrays:
            sum_.update(f"{array.shape} {array.dtype} {batch.epoch} {batch.index}".encode())
            sum_.update(array.tobytes())
    return sum_.hexdigest()


def pairs_of(longest: int, seed: int, count: int = 800) -> list[IdPair]:
    draw = random.Random(seed)
    sizes = [(draw.randint(0, longest), draw.randint(1, longest)) for _ in range(count)]
    return [
        (draw.choices(range(4, 90), k=one), draw.choices(range(4, 90), k=other))
        for one, other in sizes
    ]


def anew(pairs: Sequence[IdPair]) -> Callable[[int], list[IdPair]]:
    """Another cut of the pairs in every epoch, now and then a longer one."""

    def vary(epoch: int) -> list[IdPair]:
        draw = random.Random(epoch)
        return [(s + [4] * draw.choice((0, 0, 0, 5)), t[draw.randint(0, 1) :]) for s, t in pairs]

    return vary


def plans() -> dict[str, tuple[list[IdPair], BatchPlan]]:
    words, texts = pairs_of(13, 1), pairs_of(40, 2)
    return {
        "words": (words, BatchPlan(words, 300, 6, seed=3)),
        "texts": (
            texts,
            BatchPlan(texts, 500, seed=4, pad_id=1, decoder_start_id=7, frames=AROUND),
        ),
        "cut anew": (words, BatchPlan(words, 300, 6, seed=5, frames=AROUND, vary=anew(words))),
    }


@pytest.mark.parametrize("name", RECORDED)
def test_batches_are_those_of_lists_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "BEGINNINGS", (1.0,))  # as they were planned when recorded
    pairs, plan = plans()[name]
    said = f"{digest(plan)} {plan.fingerprint} {plan.padding!r} {fingerprint(Pairs.of(pairs))}"
    assert hashlib.sha256(said.encode()).hexdigest() == RECORDED[name]


def test_ids_are_the_lists_that_went_in() -> None:
    ids, rows = Ids.of(row for row, _ in DRAWN), [row for row, _ in DRAWN]
    assert ([*ids], len(ids)) == (rows, len(rows))
    assert ids.flat.dtype == np.int32 and ids.lengths.tolist() == [len(row) for row in rows]
    assert [*Ids.of([])] == [] and len(Ids.of([])) == 0
    assert [*Ids.of([[], (7, 5), []])] == [[], [7, 5], []]


def test_pairs_are_chosen_and_replaced() -> None:
    pairs, wanted = Pairs.of(DRAWN), np.arange(len(DRAWN)) % 3 == 1
    assert [*pairs] == DRAWN and len(pairs) == len(DRAWN)
    assert [*pairs.chosen(wanted)] == DRAWN[1::3]
    turned = Pairs(pairs.target, pairs.source)
    mixed = [(t, s) if take else (s, t) for (s, t), take in zip(DRAWN, wanted, strict=True)]
    assert [*either(pairs, turned, wanted)] == mixed
    assert either(pairs, turned, np.zeros(len(pairs), bool)) is pairs


def test_frames_count_where_pairs_are_too_long() -> None:
    pairs = [([5] * 3, [6]), ([5] * 4, [6]), ([5], [6] * 4), ([5], [6] * 5)]
    assert drop_long(pairs, 6, frames=AROUND)[1].tolist() == [True, False, True, False]
    assert drop_long(pairs, 5, frames=ENDED)[1].tolist() == [True, True, True, False]


def test_a_hash_of_pairs_is_one_of_lists() -> None:
    assert fingerprint(Pairs.of(DRAWN)) == fingerprint(DRAWN)


def test_texts_come_back_as_they_were() -> None:
    pairs = [("", "ａ 日本"), ("a\ud800b", "x\u2028y"), ("é", "")] * BLOCK
    texts = Texts.of(iter(pairs))
    assert [*zip(texts.side(0), texts.side(1), strict=True)] == pairs
