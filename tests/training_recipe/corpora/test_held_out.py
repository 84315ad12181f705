"""What is held out of a corpus that has no parts of its own."""

import pytest
from corpus_cases import NUMBERED, read, write_parallel
from messages import faults_say, saying, says

from training_recipe.corpora.corpus import hold_out
from transformer_spec.errors import UserError


class TestHeldOut:
    def test_shares_and_one_side_for_each_source(self):
        pairs = [(f"source {n}", f"{n} {copy}") for n in range(4000) for copy in range(2)]
        parts = hold_out(pairs, ["valid", "test"])
        place = {pair: n for n, pair in enumerate(pairs)}
        sources = {part: {source for source, _ in pairs} for part, pairs in parts.items()}
        assert sum(map(len, sources.values())) == 4000
        assert sorted(pair for part in parts.values() for pair in part) == sorted(pairs)
        assert 150 < len(sources["valid"]) < 250
        assert 150 < len(sources["test"]) < 250
        assert parts["train"] == sorted(parts["train"], key=place.__getitem__)

    def test_more_data_moves_no_source(self):
        before = hold_out(NUMBERED, ["valid", "test"])
        after = hold_out(NUMBERED[::-1] + [("another", "noch eine")], ["valid", "test"])
        for part in before:
            assert set(before[part]) <= set(after[part])

    @pytest.mark.parametrize("count", range(3, 20))
    def test_small_data_still_has_all_parts(self, count):
        parts = hold_out(NUMBERED[:count], ["valid", "test"])
        assert all(parts.values())
        assert sum(map(len, parts.values())) == count

    def test_too_few_sources(self):
        pairs = [("a", "1"), ("a", "2"), ("b", "3")]
        with pytest.raises(UserError, check=saying("2 different source lines", "valid")):
            hold_out(pairs, ["valid", "test"])
        assert len(hold_out(pairs, ["test"])["test"]) in (1, 2)

    def test_only_what_is_absent_is_held_out(self, folder):
        write_parallel(folder / "x", NUMBERED)
        write_parallel(folder / "dev", [("c", "C")])
        corpus = read("x", valid="dev")
        assert len(corpus.valid) == 1
        assert len(corpus.train) + len(corpus.test) == 400
        faults_say(corpus.notes, ("test", f"{len(corpus.test)} pairs", "held out"))
        assert corpus.test == read("x").test

    def test_a_source_has_all_its_targets_where_it_is_held_out(self, folder):
        pairs = [(f"line {n}", target) for n in range(400) for target in (f"{n} A", "B", "B")]
        write_parallel(folder / "x", pairs)
        corpus = read("x")
        held_out = [*corpus.valid, *corpus.test]
        assert {len(example.targets) for example in corpus.train} == {1}
        assert len({example.source for example in held_out}) == len(held_out)
        assert all(e.targets == (f"{e.source[5:]} A", "B") for e in held_out)
        assert len(corpus.train) + 3 * len(held_out) == 1200
        says(corpus.notes, "test", f"{3 * len(corpus.test)} pairs", f"{len(corpus.test)} different")
        own = read("x", valid="x", test="x")
        assert len(own.test) == 1200


class TestOverlaps:
    def test_the_training_data_itself_is_counted(self, folder):
        write_parallel(folder / "x", NUMBERED)
        corpus = read("x", valid="x", test="x")
        whole = ("400 of 400 pairs", "training data", "400 of them the whole pair")
        chosen = ("test", "400 of 400 pairs", "validation data", "chosen")
        faults_say(corpus.notes, ("valid", *whole), ("test", *whole), chosen)
        assert corpus.seen == {source for source, _ in NUMBERED}

    def test_a_part_of_it_with_other_targets(self, folder):
        write_parallel(folder / "x", [*NUMBERED, ("line 1", "noch eine")])
        tested = [("line 1", "Zeile 1"), ("line 1", "noch eine"), ("line 2", "andere"), ("c", "C")]
        write_parallel(folder / "dev", [("a", "Zeile 1")])
        write_parallel(folder / "exam", tested)
        corpus = read("x", valid="dev", test="exam")
        faults_say(corpus.notes, ("test", "3 of 4 pairs", "training data", "2 of them"))
        assert corpus.seen == {"line 1", "line 2"}

    def test_held_out_pairs_that_are_in_the_validation_data(self, folder):
        write_parallel(folder / "x", NUMBERED)
        held = read("x", valid="x").test
        write_parallel(folder / "dev", [(held[0].source, "other"), ("a", "A")])
        corpus = read("x", valid="dev")
        count = f"1 of {len(held)} pairs"
        says(corpus.notes, "test", count, "validation data", "0 of them the whole pair")
        assert len(corpus.notes) == 2 and not corpus.seen

    def test_what_is_held_out_needs_no_note(self, folder):
        write_parallel(folder / "x", [(source, "same") for source, _ in NUMBERED])
        assert not any("note" in note for note in read("x").notes)
