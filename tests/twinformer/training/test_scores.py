"""Scores against numbers worked out by hand."""

import math

import pytest
from messages import saying

from training_recipe.corpora.corpus import Example
from transformer_spec.errors import UserError
from twinformer.training.evaluation.judge import Judgement
from twinformer.training.evaluation.scores import Scores, score


def pronounce(*cases):
    hypotheses = [hypothesis for hypothesis, *_ in cases]
    return score("pronunciation", hypotheses, [Example("w", tuple(t)) for _, *t in cases])


class TestErrorRates:
    def test_by_hand(self):
        scores = pronounce(
            ("K AE T", "K AE T"),  # right: 0 of 3
            ("R IY D", "R EH D", "R IY D"),  # right by its second alternative: 0 of 3
            ("D AA G Z", "D AO G"),  # one changed, one too many: 2 of 3
            ("", "B ER D", "B"),  # nothing said: 1 of the 1 of the closest
        )
        assert scores.values == {"WER": 50.0, "PER": 100 * 3 / 10}
        assert scores.best == ("WER", "lower")
        assert scores.line() == "WER 50.00  PER 30.00"

    def test_spacing_does_not_matter(self):
        assert pronounce((" K  AE T ", "K AE T")).values == {"WER": 0.0, "PER": 0.0}

    def test_phonemes_are_compared_whole(self):
        assert pronounce(("AH", "AE")).values == {"WER": 100.0, "PER": 100.0}

    def test_of_equally_close_alternatives_the_first_counts(self):
        assert pronounce(("A B", "A", "A B C")).values["PER"] == 100.0
        assert pronounce(("A B", "A B C", "A")).values["PER"] == pytest.approx(100 / 3)


class TestTranslation:
    def test_bleu_by_hand(self):
        hypothesis = "the cat is on the mat"
        examples = [Example("x", ("the cat sat on the mat",))]
        scores = score("translation", [hypothesis], examples, tokenize="none")
        # precisions 5/6, 3/5, 1/4 and, smoothed, 1/6; equal lengths, so no brevity penalty
        precisions = (5 / 6, 3 / 5, 1 / 4, 1 / 6)
        assert scores.values["BLEU"] == pytest.approx(100 * math.prod(precisions) ** 0.25)
        assert scores.best == ("BLEU", "higher")
        assert "tok:none" in scores.signatures["BLEU"]

    def test_perfect_output(self):
        text = "a small test of perfect words"
        scores = score("translation", [text], [Example("x", (text,))])
        assert scores.values == {"BLEU": pytest.approx(100), "chrF": pytest.approx(100)}
        assert scores.line() == "BLEU 100.00  chrF 100.00"
        assert "tok:13a" in scores.signatures["BLEU"]
        assert "nc:6" in scores.signatures["chrF"]

    def test_tokenization_separates_punctuation(self):
        examples = [Example("x", ("this is a test , right ?",))]
        values = [
            score("translation", ["this is a test, right?"], examples, tokenize).values["BLEU"]
            for tokenize in ("13a", "none")
        ]
        assert values[0] == pytest.approx(100)
        assert values[1] < 60

    def test_a_second_reference_counts_where_there_is_one(self):
        examples = [
            Example("x", ("one two three four", "five six seven eight")),
            Example("y", ("nine ten eleven twelve",)),
        ]
        hypotheses = ["five six seven eight", "nine ten eleven twelve"]
        assert score("translation", hypotheses, examples).values["BLEU"] == pytest.approx(100)

    def test_empty_output_scores_zero(self):
        scores = score("translation", [""], [Example("x", ("some words",))])
        assert scores.values == {"BLEU": 0.0, "chrF": 0.0}

    def test_an_unknown_tokenization_names_those_that_exist(self):
        with pytest.raises(UserError, match="14a.*none, .*13a"):
            score("translation", ["a"], [Example("x", ("a",))], tokenize="14a")


def test_better_means_lower_or_higher():
    errors = Scores({"WER": 30.0, "PER": 8.0}, ("WER", "lower"))
    bleu = Scores({"BLEU": 30.0}, ("BLEU", "higher"))
    assert errors.main == bleu.main == 30.0
    assert errors.is_better_than(31.0) and not errors.is_better_than(30.0)
    assert bleu.is_better_than(29.0) and not bleu.is_better_than(30.0)


@pytest.mark.parametrize(
    ("loss", "before", "better"),
    [(1, 2, True), (2, 1, False), (1, 1, False), (1, None, True), (None, 2, False)],
)
def test_of_equal_scores_the_lower_loss_is_better(loss, before, better):
    """BLEU of texts of a word each is 0.00 after every validation, also of the model as it came."""
    scores = score("translation", ["eins"], [Example("one", ("eins",))])
    assert scores.main == 0
    assert Judgement(loss, scores, [], []).is_better_than(0.0, before) is better


def test_a_score_decides_before_the_loss():
    scores = Scores({"BLEU": 30.0}, ("BLEU", "higher"))
    assert Judgement(9.0, scores, [], []).is_better_than(29.0, 1.0)
    assert not Judgement(1.0, scores, [], []).is_better_than(31.0, 9.0)
    assert Judgement(1.0, None, [], []).is_better_than(2.0, 2.0)
    assert not Judgement(2.0, None, [], []).is_better_than(2.0, 2.0)


def test_numbers_and_tasks_must_fit():
    with pytest.raises(ValueError, check=saying("2 outputs", "1 examples")):
        score("pronunciation", ["A", "B"], [Example("x", ("A",))])
    with pytest.raises(ValueError, match="0 outputs"):
        score("translation", [], [])
    with pytest.raises(ValueError, match="no task 'summary'"):
        score("summary", ["A"], [Example("x", ("A",))])
