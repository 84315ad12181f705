"""Sources in batches of few shapes: every one decoded once, outputs in the order of the sources."""

import numpy as np

from training_recipe.searching.batches import batches, within
from training_recipe.searching.search import Hypothesis, Search
from transformer_spec import TransformerConfig
from twinformer.translating.texts import translate as translate_ids


def rows_32(length: int) -> int:
    return 32


class TestBatches:
    def test_few_shapes(self):
        draw = np.random.default_rng(0)
        lengths = [int(n) for n in draw.integers(0, 90, 500)]
        made = list(batches(lengths, rows_32, 100))
        assert {shape for _, shape in made} == {(32, 8), (32, 16), (32, 32), (32, 64), (32, 100)}
        together = sorted(number for members, _ in made for number in members)
        assert together == [number for number, length in enumerate(lengths) if length > 0]
        for members, (rows, width) in made:
            assert len(members) <= rows
            assert max(lengths[number] for number in members) <= width

    def test_rows_of_few_sources(self):
        assert [shape for _, shape in batches([5, 0, 3, 4], rows_32, 100)] == [(4, 8)]
        assert [shape for _, shape in batches([5], rows_32, 6)] == [(1, 6)]
        assert list(batches([0, 0], rows_32, 100)) == []

    def test_rows_within_a_budget(self):
        rows_of = within(1024, 5)
        assert [rows_of(length) for length in (8, 16, 100, 10**6)] == [128, 64, 16, 1]
        assert [shape for _, shape in batches([9] * 100 + [3] * 200, rows_of, 64)] == [
            (64, 16), (64, 16), (128, 8), (128, 8)
        ]  # fmt: skip

    def test_order_is_restored(self):
        draw = np.random.default_rng(0)
        config = TransformerConfig(9, 9, 8, 8, 2, 1, 1, 100)
        ids = [[4] * int(n) for n in draw.integers(0, 9, 300)]

        def decode(source, search):
            return [[Hypothesis([int((row == 4).sum())], 0.0, 0.0)] for row in source]

        advanced = []
        blocks = list(translate_ids(ids, decode, Search(), 4, config, advanced.append))
        found = [outputs[0].ids for block in blocks for outputs in block]
        assert found == [[len(part)] if part else [] for part in ids]
        assert len(blocks) == 3 and sum(advanced) == 300
