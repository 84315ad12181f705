"""``--bpe-dropout``: other cuts in every epoch, the same ones for the same seed."""

import random
import subprocess
import sys
from itertools import compress

import numpy as np
import pytest
from training_cases import SMALL, assert_same_run, run, signal_after, write_words

from training_recipe import preparation
from training_recipe.batching.batches import BatchPlan, drop_long, encode_pairs, text_pairs
from training_recipe.batching.ids import Pairs, Texts
from training_recipe.batching.recutting import Recut
from training_recipe.corpora.corpus import Corpus, Example
from training_recipe.options.flags import parse
from training_recipe.text.vocabulary import build_vocabulary
from transformer_spec import TransformerConfig, UserError

LONGEST = 28


def words(count: int) -> list[str]:
    draw = random.Random(1)
    roots = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(30)]
    return [" ".join(draw.choices(roots, k=draw.randint(1, 6))) for _ in range(count)]


@pytest.fixture(scope="module")
def vocabulary():
    return build_vocabulary("sentencepiece", words(300), 40, "shared", "bpe")


def recut(vocabulary, seed: int = 1, rate: float = 0.3) -> tuple[Pairs, Recut]:
    """The usual ids of pairs that are not too long, and what cuts them anew."""
    examples = [Example(text, (text[::-1],)) for text in words(200)]
    usual, kept, _ = drop_long(encode_pairs(examples, vocabulary, vocabulary), LONGEST)
    assert 0 < len(usual) < len(examples)
    texts = Texts.of(compress(text_pairs(examples), kept))
    return usual, Recut(texts, usual, (vocabulary, vocabulary), LONGEST, rate, seed)


def test_nothing_left_out_is_the_cut_of_sentencepiece(vocabulary) -> None:
    odd = ["", " ", "abc  ab", "ＡＢ ab", "xyz?ab", "日本ab c", "ab\ud800c", "a\u2581b"]
    texts = [*words(300), *odd]
    assert vocabulary.sample(texts, 0.0, 1) == [vocabulary.encode(text) for text in texts]


def test_everything_left_out_is_characters(vocabulary) -> None:
    (cut,) = vocabulary.sample(["abc ab"], 1.0, 1)
    assert [vocabulary.token(index) for index in cut] == [*"▁abc", *"▁ab"]


def test_another_process_cuts_alike(vocabulary, tmp_path) -> None:
    vocabulary.save(tmp_path, "source")
    code = (
        "import sys; from pathlib import Path; "
        "from training_recipe.text.vocabulary import load_vocabulary; "
        "print(load_vocabulary(Path(sys.argv[1]), 'source').sample(sys.argv[2:], 0.3, 7))"
    )
    texts = words(20)
    command = [sys.executable, "-c", code, str(tmp_path), *texts]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(vocabulary.sample(texts, 0.3, 7))


def test_the_same_seed_cuts_alike_whatever_was_drawn_before(vocabulary) -> None:
    texts = words(50)
    first = vocabulary.sample(texts, 0.3, 7)
    other = vocabulary.sample(texts, 0.3, 8)
    assert vocabulary.sample(texts, 0.3, 7) == first != other
    usual = [vocabulary.encode(text) for text in texts]
    assert first != usual
    for cut in (first, other):
        assert [vocabulary.decode(ids) for ids in cut] == texts


def test_epochs_and_seeds_differ_and_nothing_is_too_long(vocabulary) -> None:
    usual, cut = recut(vocabulary)
    again = recut(vocabulary)[1]
    assert [*cut(3)] == [*again(3)] != [*cut(4)] != [*cut(-4)]
    assert [*cut(3)] != [*recut(vocabulary, seed=2)[1](3)]
    for epoch in (1, 2):
        assert len(cut(epoch)) == len(usual)
        for (source, target), (plain, _) in zip(cut(epoch), usual, strict=True):
            assert max(len(source), len(target)) < LONGEST
            assert vocabulary.decode(source) == vocabulary.decode(plain)


def test_batches_have_every_pair_in_the_same_few_shapes(vocabulary) -> None:
    pairs, cut = recut(vocabulary)
    plan, fresh = (BatchPlan(pairs, 200, 4, seed=1, vary=cut) for _ in range(2))
    count, usual = plan.batches_per_epoch, sorted(vocabulary.decode(s) for s, _ in pairs)
    cuts = []
    for epoch in (1, 2):
        batches = [plan.batch(step) for step in range((epoch - 1) * count + 1, epoch * count + 1)]
        assert {(*b.source.shape, b.target_out.shape[1]) for b in batches} == set(plan.shapes)
        rows = [tuple(row[row != 0]) for b in batches for row in b.source if row[0]]
        assert sorted(vocabulary.decode(row) for row in rows) == usual
        assert {row[-1] for row in rows} == {3}
        cuts.append(rows)
    new = set(cuts[0]) - {(*source, 3) for source, _ in pairs}
    assert len(new) > 50 and set(cuts[0]) != set(cuts[1])
    for step in (2 * count, 1, count + 3, 2):
        assert np.array_equal(fresh.batch(step).source, plan.batch(step).source)
    real = sum(b.source_tokens + b.tokens for b in map(plan.batch, range(1, count + 1)))
    entries = sum(rows * (s + t) for rows, s, t in (
        (*plan.batch(step).source.shape, plan.batch(step).target_out.shape[1])
        for step in range(1, count + 1)
    ))  # fmt: skip
    assert plan.padding == pytest.approx(1 - real / entries)


def test_it_needs_merges() -> None:
    with pytest.raises(UserError, match="needs sentencepiece, not characters and whitespace"):
        parse(["--bpe-dropout", "0.1"])
    kinds = ["--source-vocabulary", "sentencepiece", "--target-vocabulary", "characters"]
    with pytest.raises(UserError, match="algorithm bpe needs sentencepiece, not characters"):
        parse(["--sentencepiece-algorithm", "bpe"])
    with pytest.raises(UserError, match="needs sentencepiece_algorithm bpe, not unigram"):
        parse([*kinds, "--bpe-dropout", "0.1"])
    merges = ["--sentencepiece-algorithm", "bpe"]
    assert parse([*kinds, *merges, "--bpe-dropout", "0.1"]).settings.bpe_dropout == 0.1


def test_a_corpus_is_encoded_once(vocabulary, monkeypatch) -> None:
    """What fits is decided once, and the pairs that are cut anew are those of the plan."""
    settings = parse([
        "--source-vocabulary", "sentencepiece", "--target-vocabulary", "sentencepiece",
        "--sentencepiece-algorithm", "bpe", "--bpe-dropout", "0.3", "--batch-tokens", "200",
    ]).settings  # fmt: skip
    examples, seen = [Example(text, (text[::-1],)) for text in words(200)], []
    encode = type(vocabulary).encode
    monkeypatch.setattr(
        type(vocabulary), "encode", lambda self, text: seen.append(text) or encode(self, text)
    )
    corpus = Corpus("words", "translation", examples, examples[:5], examples[:5])
    config = TransformerConfig(40, 40, 8, 8, 2, 1, 1, LONGEST)
    plan = preparation._prepare(settings, lambda: corpus, (vocabulary, vocabulary), config).plan
    assert len(seen) == 2 * (len(examples) + 5)
    batches = map(plan.batch, range(1, plan.batches_per_epoch + 1))
    found = [vocabulary.decode(row) for b in batches for row in b.source if row[0]]
    usual, _ = recut(vocabulary)
    assert sorted(found) == sorted(vocabulary.decode(source) for source, _ in usual)


def test_a_run_is_resumed_with_the_same_cuts(tmp_path, monkeypatch, quick) -> None:
    write_words(tmp_path, 300)
    monkeypatch.chdir(tmp_path)
    pieces = ["--source-vocabulary", "sentencepiece", "--target-vocabulary", "sentencepiece"]
    pieces += ["--sentencepiece-algorithm", "bpe"]
    sizes = ["--source-vocab-size", "16", "--target-vocab-size", "16", "--batch-tokens", "400"]
    arguments = [*SMALL, *pieces, *sizes, "--bpe-dropout", "0.3"]
    assert run("numpy", [*arguments, "--name", "whole"]) == 0
    assert run("numpy", [*arguments, "--name", "a"], signal_after(7)) == 130
    assert run("numpy", ["--resume", "runs/a"]) == 0
    assert_same_run(tmp_path / "runs/a", tmp_path / "runs/whole")
