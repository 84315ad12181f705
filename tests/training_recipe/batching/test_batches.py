"""Batches: contents, bounded shapes, every pair once an epoch, order from seed and epoch."""

import random
import time
from itertools import product

import numpy as np
import pytest
from messages import faults_say, saying

from training_recipe.batching.batches import BatchPlan, drop_long, encode_pairs, encode_sources
from training_recipe.batching.shapes import partition
from training_recipe.corpora.corpus import Example
from training_recipe.text.vocabulary import Frame, build_vocabulary
from transformer_spec.errors import UserError

ENDED = Frame((), (0,)), Frame((), (0,))


def random_pairs(count, seed=0):
    """Pairs whose first source and target id name the pair."""
    draw = random.Random(seed)
    lengths = [(draw.randint(1, 23), draw.randint(1, 19)) for _ in range(count)]
    return [([n + 4, *[5] * s], [n + 4, *[6] * t]) for n, (s, t) in enumerate(lengths)]


def epoch_of(plan, epoch):
    first = (epoch - 1) * plan.batches_per_epoch + 1
    return [plan.batch(number) for number in range(first, first + plan.batches_per_epoch)]


def same(one, other):
    names = ("source", "target_in", "target_out")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names) and (
        (one.epoch, one.index) == (other.epoch, other.index)
    )


def full_entries(pairs, corners):
    """Entries of the full batches of 60 tokens that hold all pairs, each in its cheapest corner."""
    prices = [np.where((pairs <= corner).all(1), corner.sum(), 10**6) for corner in corners]
    chosen, total = np.argmin(prices, 0), 0
    for number, corner in enumerate(corners):
        rows = max(1, 60 // corner.max())
        total += -(-np.count_nonzero(chosen == number) // rows) * rows * corner.sum()
    return total


class TestContents:
    def test_by_hand(self):
        pairs = [([5, 7], [8]), ([9], [6, 5, 4]), ([4, 4], [])]
        plan = BatchPlan(pairs, budget=12, max_shapes=1, decoder_start_id=2)
        assert plan.shapes == [(3, 3, 4)]
        batch = plan.batch(1)
        order = [[5, 9, 4].index(first) for first in batch.source[:, 0]]
        back = np.argsort(order)
        assert batch.source[back].tolist() == [[5, 7, 3], [9, 3, 0], [4, 4, 3]]
        assert batch.target_in[back].tolist() == [[2, 8, 0, 0], [2, 6, 5, 4], [2, 0, 0, 0]]
        assert batch.target_out[back].tolist() == [[8, 3, 0, 0], [6, 5, 4, 3], [3, 0, 0, 0]]
        assert (batch.source_tokens, batch.tokens) == (8, 7)
        assert {batch.source.dtype, batch.target_in.dtype, batch.target_out.dtype} == {
            np.dtype(np.int32)
        }
        assert plan.padding == pytest.approx(1 - 15 / 21)

    def test_other_special_ids(self):
        plan = BatchPlan(
            [([5], [6]), ([5, 5], [6])], 9, 1, pad_id=1, decoder_start_id=1, frames=ENDED
        )
        batch = plan.batch(1)
        assert sorted(batch.source.tolist()) == [[5, 0, 1], [5, 5, 0]]
        assert batch.target_in.tolist() == [[1, 6], [1, 6]]
        assert batch.target_out.tolist() == [[6, 0], [6, 0]]
        assert (batch.source_tokens, batch.tokens) == (5, 4)

    def test_rows_beyond_the_examples_are_padding(self):
        plan = BatchPlan([([5], [6])] * 5, budget=6, max_shapes=1)
        assert plan.shapes == [(3, 2, 2)]
        rows = [np.count_nonzero(batch.source[:, 0]) for batch in epoch_of(plan, 1)]
        assert sorted(rows) == [2, 3]
        for batch, count in zip(epoch_of(plan, 1), rows, strict=True):
            for array in (batch.source, batch.target_in, batch.target_out):
                assert (array[:count] != 0).any(axis=1).all()
                assert not array[count:].any()

    def test_a_pair_longer_than_the_budget_has_a_batch_of_its_own(self):
        plan = BatchPlan([([5] * 10, [6])] * 2, budget=7)
        assert plan.shapes == [(1, 11, 2)]
        assert plan.batches_per_epoch == 2


class TestPlan:
    @pytest.mark.parametrize(
        ("count", "budget", "max_shapes"),
        list(product((1, 2, 97, 500), (13, 128, 1024), (1, 3, 12))),
    )
    def test_every_pair_once_an_epoch_in_bounded_shapes(self, count, budget, max_shapes):
        pairs = random_pairs(count)
        plan = BatchPlan(pairs, budget, max_shapes)
        assert 1 <= len(plan.shapes) <= max_shapes
        for epoch in (1, 2):
            seen, shapes, real, entries = [], set(), 0, 0
            for index, batch in enumerate(epoch_of(plan, epoch)):
                assert (batch.epoch, batch.index) == (epoch, index)
                rows = batch.source[batch.source[:, 0] != 0]
                seen += (rows[:, 0] - 4).tolist()
                shapes.add((*batch.source.shape, batch.target_out.shape[1]))
                real += batch.source_tokens + batch.tokens
                entries += batch.source.size + batch.target_out.size
                for row, target in zip(batch.source, batch.target_out, strict=True):
                    if row[0]:
                        source_ids, target_ids = pairs[row[0] - 4]
                        assert row[row != 0].tolist() == [*source_ids, 3]
                        assert target[target != 0].tolist() == [*target_ids, 3]
            assert sorted(seen) == list(range(count))
            assert shapes == set(plan.shapes)
            assert plan.padding == pytest.approx(1 - real / entries)

    def test_no_batch_exceeds_the_budget(self):
        plan = BatchPlan(random_pairs(300), budget=100)
        assert all(rows * max(source, target) <= 100 for rows, source, target in plan.shapes)

    def test_more_shapes_mean_less_padding(self):
        pairs = random_pairs(3000)
        shares = [BatchPlan(pairs, 256, shapes).padding for shapes in (1, 2, 4, 12)]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] > 0.4
        assert shares[-1] < 0.25

    def test_one_length_needs_one_shape(self):
        assert len(BatchPlan([([5] * 3, [6] * 4)] * 1000, 50).shapes) == 1

    def test_two_groups_are_cut_between_them(self):
        source = np.array([3] * 40 + [11] * 40)
        target = np.array([7] * 40 + [5] * 40)
        boxes = partition(source, target, budget=110, max_shapes=12)
        assert sorted((box.source, box.target, len(box.members)) for box in boxes) == [
            (3, 7, 40),
            (11, 5, 40),
        ]
        assert [box.shape for box in boxes if box.source == 11] == [(10, 11, 5)]

    @pytest.mark.parametrize("count", [53, 101, 1009])
    @pytest.mark.parametrize("related", [True, False])
    def test_two_shapes_are_nearly_the_best_two(self, count, related):
        """Against every pair of shapes there is; batches count as if they were full."""
        draw = np.random.default_rng(count)
        source = draw.integers(1, 30, count)
        target = source + draw.integers(0, 5, count) if related else draw.integers(1, 30, count)
        pairs = np.stack([source, target], 1)
        best = min(
            full_entries(pairs, [np.array(first), pairs[(pairs > first).any(1)].max(0)])
            for first in product(range(1, 30), range(1, 34))
            if (pairs > first).any()
        )
        boxes = partition(source, target, 60, 2)
        found = full_entries(pairs, [np.array([box.source, box.target]) for box in boxes])
        assert found <= 1.03 * best

    def test_a_pair_goes_into_the_cheapest_box_that_holds_it(self):
        draw = np.random.default_rng(1)
        source, target = draw.integers(1, 40, (2, 500))
        boxes = partition(source, target, 200, 6)
        for box in boxes:
            for pair in box.members:
                held = (b for b in boxes if b.source >= source[pair] and b.target >= target[pair])
                assert box.source + box.target == min(b.source + b.target for b in held)

    def test_many_pairs_are_planned_fast(self):
        draw = np.random.default_rng(0)
        source, target = draw.integers(1, 100, (2, 130_000))
        start = time.process_time()
        boxes = partition(source, target, 4096, 12)
        assert time.process_time() - start < 5  # a quadratic one takes minutes
        assert len(boxes) == 12


class TestOrder:
    def test_a_batch_depends_on_its_number_alone(self):
        pairs = random_pairs(300)
        plan, fresh = BatchPlan(pairs, 100, seed=3), BatchPlan(pairs, 100, seed=3)
        last = 3 * plan.batches_per_epoch
        forward = {number: plan.batch(number) for number in range(1, last + 1)}
        numbers = list(forward)
        random.Random(1).shuffle(numbers)
        assert all(same(fresh.batch(number), forward[number]) for number in numbers)

    def test_the_fingerprint_tells_plans_apart(self):
        pairs = random_pairs(300)
        seeds = [BatchPlan(pairs, 100, 6, seed=seed).fingerprint for seed in (1, 2)]
        swapped = [pairs[1], pairs[0], *pairs[2:]]
        others = [BatchPlan(pairs, 100, 5), BatchPlan(pairs, 99, 6), BatchPlan(swapped, 100, 6)]
        assert len({*seeds, *(plan.fingerprint for plan in others)}) == 5
        assert BatchPlan(pairs, 100, 6, seed=1).fingerprint == seeds[0]

    def test_epochs_and_seeds_differ(self):
        pairs = random_pairs(300)
        plans = [BatchPlan(pairs, 100, seed=seed) for seed in (1, 2)]
        epochs = [epoch_of(plans[0], 1), epoch_of(plans[0], 2), epoch_of(plans[1], 1)]
        firsts = [[tuple(batch.source[:, 0]) for batch in epoch] for epoch in epochs]
        assert firsts[0] != firsts[1] != firsts[2] != firsts[0]
        # not only the batches' order changes: their members do too
        assert len({frozenset(map(frozenset, first)) for first in firsts}) == 3

    def test_the_order_is_the_same_everywhere(self):
        plan = BatchPlan([([n + 4], [4]) for n in range(7)], 4, seed=5)
        firsts = [batch.source[:, 0].tolist() for batch in epoch_of(plan, 1)]
        assert firsts == [
            [10, 5],
            [9, 8],
            [7, 0],
            [6, 4],
        ]  # as first recorded: a resumed run's order

    def test_lengths_are_mixed_within_an_epoch(self):
        plan = BatchPlan(random_pairs(3000), 100)
        lengths = [batch.source.shape[1] for batch in epoch_of(plan, 1)]
        middle = len(lengths) // 2
        assert abs(np.mean(lengths[:middle]) - np.mean(lengths[middle:])) < 2


class TestMistakes:
    def test_no_pairs(self):
        with pytest.raises(UserError, match="no pairs"):
            BatchPlan([], 100)

    @pytest.mark.parametrize(
        "arguments", [{"budget": 0}, {"budget": 9, "max_shapes": 0}, {"budget": 9, "seed": -1}]
    )
    def test_impossible_arguments(self, arguments):
        with pytest.raises(ValueError, match="at least"):
            BatchPlan([([5], [6])], **arguments)

    def test_batches_count_from_one(self):
        with pytest.raises(ValueError, match="batch 0"):
            BatchPlan([([5], [6])], 9).batch(0)


class TestLongPairs:
    def test_eos_counts_and_either_side_decides(self):
        pairs = [([5] * 3, [6]), ([5] * 4, [6]), ([5], [6] * 4), ([5], [6] * 3)]
        kept, fits, notes = drop_long(pairs, 4)
        assert [*kept] == [pairs[0], pairs[3]]
        assert fits.tolist() == [True, False, False, True]
        faults_say(notes, ("2 of 4 training pairs", "max_length 4", "left out"))

    def test_nothing_to_drop_says_nothing(self):
        pairs = random_pairs(5)
        kept, fits, notes = drop_long(pairs, 64)
        assert ([*kept], fits.tolist(), notes) == (pairs, [True] * 5, [])

    def test_large_numbers_have_separators(self):
        notes = drop_long([([5], [6])] * 28_988 + [([5] * 9, [6])] * 12, 8, "validation pairs")[2]
        faults_say(notes, ("12 of 29,000 validation pairs", "max_length 8", "left out"))

    def test_nothing_left_is_an_error(self):
        with pytest.raises(UserError, check=saying("3 of 3 training pairs", "none is left")):
            drop_long([([5] * 9, [6])] * 3, 9)


def test_encode_pairs_gives_one_pair_for_each_alternative():
    examples = [Example("ab", ("X Y", "Y")), Example("b", ("X",))]
    source = build_vocabulary("characters", ["aab"])
    target = build_vocabulary("whitespace", ["X X Y"])
    assert [*encode_pairs(examples, source, target)] == [
        ([4, 5], [4, 5]),
        ([4, 5], [5]),
        ([5], [4]),
    ]


def test_encode_sources():
    assert encode_sources([[5, 6], [], [7]]).tolist() == [[5, 6, 3], [3, 0, 0], [7, 3, 0]]
    padded = encode_sources([[5, 6]], rows=2, length=4, pad_id=1, frame=ENDED[0])
    assert padded.tolist() == [[5, 6, 0, 1], [1, 1, 1, 1]]
    assert padded.dtype == np.int32
    assert encode_sources([]).shape == (0, 1)
    with pytest.raises(ValueError, check=saying("(1, 3)", "(1, 2)")):
        encode_sources([[5, 6]], length=2)
