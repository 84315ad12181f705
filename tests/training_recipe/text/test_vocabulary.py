"""Vocabularies: round trips, special ids, files that are damaged, sizes that do not fit."""

import json
import random
import string

import pytest
from messages import saying

from training_recipe.text.vocabulary import (
    SentencePieceVocabulary,
    build_vocabulary,
    load_vocabulary,
)
from transformer_spec.errors import UserError

TEXTS = [
    "the cat sat on the mat",
    "a dog ran over the wet grass",
    "the old grey cat saw a small bird",
    "birds sing when the morning is clear",
    "no dog can sing and no bird can bark",
]
KINDS = ("characters", "whitespace", "sentencepiece")


@pytest.fixture(scope="module")
def vocabularies():
    sizes = {"characters": None, "whitespace": None, "sentencepiece": 40}
    return {kind: build_vocabulary(kind, TEXTS, sizes[kind]) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_known_text_returns(vocabularies, kind):
    vocabulary = vocabularies[kind]
    assert vocabulary.kind == kind
    for text in TEXTS:
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert all(4 <= index < vocabulary.size for index in ids)
        assert vocabulary.count_unknown(text) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_decode_stops_at_eos_and_skips_pad_and_bos(vocabularies, kind):
    vocabulary = vocabularies[kind]
    ids = vocabulary.encode("the cat")
    assert (vocabulary.pad_id, vocabulary.unk_id) == (0, 1)
    assert (vocabulary.bos_id, vocabulary.eos_id) == (2, 3)
    assert vocabulary.decode([2, 0, *ids, 3, *vocabulary.encode("a dog")]) == "the cat"
    assert vocabulary.decode([3]) == vocabulary.decode([]) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_pieces_become_unk_and_are_counted(vocabularies, kind):
    vocabulary = vocabularies[kind]
    text = "the \N{SNOWMAN} cat"
    assert vocabulary.encode(text).count(vocabulary.unk_id) == 1
    assert vocabulary.count_unknown(text) == 1
    assert vocabulary.decode(vocabulary.encode(text)) != "the  cat"


def test_special_words_in_a_text_are_plain_text(vocabularies):
    for vocabulary in vocabularies.values():
        assert not {0, 2, 3} & set(vocabulary.encode("<pad> <s> </s> cat"))


def test_ids_follow_frequency_then_the_alphabet():
    vocabulary = build_vocabulary("characters", ["c", "banana"])
    assert vocabulary.size == len(vocabulary) == 8
    assert vocabulary.encode("anbcx") == [4, 5, 6, 7, 1]


def test_size_keeps_the_most_frequent_pieces():
    vocabulary = build_vocabulary("whitespace", ["b a b", "c b a"], size=6)
    assert vocabulary.size == 6
    assert vocabulary.encode("a b c") == [5, 4, 1]
    assert vocabulary.decode([5, 1, 4]) == "a <unk> b"


def test_characters_return_exactly_without_normalisation():
    alphabet = "e\u0301é \t\u2028\ufb01Ⅸ\U0001f600\u200d"
    draw = random.Random(0)
    texts = ["".join(draw.choices(alphabet, k=11)) for _ in range(50)]
    vocabulary = build_vocabulary("characters", [alphabet])
    assert [vocabulary.decode(vocabulary.encode(text)) for text in texts] == texts


def test_whitespace_returns_up_to_runs_of_whitespace():
    vocabulary = build_vocabulary("whitespace", ["AH B"])
    assert vocabulary.decode(vocabulary.encode("  B \t AH ")) == "B AH"


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_vocabulary_is_the_same_again(vocabularies, kind, tmp_path):
    vocabulary = vocabularies[kind]
    vocabulary.save(tmp_path, "source")
    build_vocabulary("characters", ["xyz"]).save(tmp_path, "target")
    loaded = load_vocabulary(tmp_path, "source")
    assert (loaded.kind, loaded.size) == (kind, vocabulary.size)
    assert [loaded.encode(t) for t in TEXTS] == [vocabulary.encode(t) for t in TEXTS]
    assert load_vocabulary(tmp_path, "target").size == 7


def test_listed_pieces_are_readable_in_the_file(tmp_path):
    build_vocabulary("whitespace", ["schön schön neu"]).save(tmp_path, "target")
    text = (tmp_path / "target.json").read_text(encoding="utf-8")
    assert '"schön"' in text
    assert json.loads(text) == {
        "format_version": 1,
        "kind": "whitespace",
        "special": ["<pad>", "<unk>", "<s>", "</s>"],
        "pieces": ["schön", "neu"],
    }


def test_every_truncation_of_a_listed_vocabulary_is_a_user_error(tmp_path):
    build_vocabulary("characters", ["añb"]).save(tmp_path, "source")
    path = tmp_path / "source.json"
    content = path.read_bytes()
    for length in range(len(content.rstrip())):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="cannot read the source vocabulary"):
            load_vocabulary(tmp_path, "source")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"kind": "syllables"}, ["characters, whitespace, sentencepiece"]),
        ({"format_version": 2}, ["format version", 2, 1]),
        ({"pieces": ["a", "b", "a"]}, ["'a'", "more than once"]),
        ({"pieces": ["a", "bc"]}, ["entry 1", "'bc'"]),
        ({"pieces": ["a", 5]}, ["entry 1", 5]),
        ({"pieces": []}, ["no list of pieces"]),
    ],
)
def test_a_wrong_vocabulary_file_says_what_is_wrong(tmp_path, change, parts):
    build_vocabulary("characters", ["ab"]).save(tmp_path, "source")
    path = tmp_path / "source.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, check=saying(path, *parts)):
        load_vocabulary(tmp_path, "source")


def test_missing_vocabulary_files_are_named(vocabularies, tmp_path):
    with pytest.raises(UserError, match=r"source\.json"):
        load_vocabulary(tmp_path, "source")
    vocabularies["sentencepiece"].save(tmp_path, "source")
    (tmp_path / "source.model").unlink()
    with pytest.raises(UserError, match=r"source\.model"):
        load_vocabulary(tmp_path, "source")


def test_a_damaged_sentencepiece_model_is_a_user_error(vocabularies, tmp_path, capfd):
    vocabularies["sentencepiece"].save(tmp_path, "source")
    path = tmp_path / "source.model"
    content = path.read_bytes()
    for damaged in (b"", content[:72], content[:-1], content[:99] + b"\x00" + content[100:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="SHA-256"):
            load_vocabulary(tmp_path, "source")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_sentencepiece_trains_silently_and_repeatably(algorithm, capfd):
    first = build_vocabulary("sentencepiece", iter(TEXTS), 40, algorithm=algorithm)
    second = build_vocabulary("sentencepiece", iter(TEXTS), 40, algorithm=algorithm)
    assert isinstance(first, SentencePieceVocabulary)
    assert isinstance(second, SentencePieceVocabulary)
    assert first.size == 40
    assert first.model == second.model
    assert capfd.readouterr() == ("", "")


def test_sentencepiece_algorithms_differ():
    models = {
        a: build_vocabulary("sentencepiece", TEXTS, 40, algorithm=a) for a in ("unigram", "bpe")
    }
    text = "birds sing over the grass"
    assert models["unigram"].encode(text) != models["bpe"].encode(text)


def test_sentencepiece_keeps_long_lines():
    vocabulary = build_vocabulary("sentencepiece", [*TEXTS, "zebra " * 1000])
    assert vocabulary.count_unknown("zebra") == 0


def test_sentencepiece_takes_undecodable_input_as_unknown(vocabularies):
    assert vocabularies["sentencepiece"].count_unknown("cat \udcff") == 1


def test_a_sentencepiece_size_that_does_not_fit_names_the_limit():
    with pytest.raises(UserError, match=r"target .* 9,000 .*too large.* \d+"):
        build_vocabulary("sentencepiece", TEXTS, 9000, "target")
    with pytest.raises(UserError, match=r"source .* 9 .*too small.* \d+"):
        build_vocabulary("sentencepiece", TEXTS, 9)


def test_the_default_sentencepiece_size_shrinks_to_a_small_corpus():
    assert 20 < build_vocabulary("sentencepiece", TEXTS).size < 8000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_no_text_is_a_user_error(kind, texts):
    if kind == "characters" and texts:
        texts = [""]
    with pytest.raises(UserError, check=saying("no text", "target vocabulary")):
        build_vocabulary(kind, texts, side="target")


def test_impossible_requests_say_what_is_allowed():
    with pytest.raises(UserError, match="choose one of characters, whitespace, sentencepiece"):
        build_vocabulary("letters", TEXTS)
    with pytest.raises(UserError, match="choose one of unigram, bpe"):
        build_vocabulary("sentencepiece", TEXTS, 40, algorithm="word")
    with pytest.raises(UserError, match="size 4: 4 ids are special"):
        build_vocabulary("characters", TEXTS, 4)


class TestRareCharacters:
    """Digits are rare in captions; a number must not come out with some of them lost."""

    LETTERS = random.Random(1).choices(string.ascii_lowercase + " ", k=20_000)
    TEXTS = ["".join(LETTERS)] * 20
    RARE = "number 8, café"
    NOISE = "".join(chr(0x4E00 + number) for number in range(20))

    @pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
    def test_they_are_known_where_all_characters_are_few(self, algorithm):
        texts = [*self.TEXTS, self.RARE]
        vocabulary = build_vocabulary("sentencepiece", texts, 400, algorithm=algorithm)
        assert vocabulary.decode(vocabulary.encode(self.RARE)) == self.RARE

    @pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
    def test_they_are_unknown_where_characters_would_fill_the_pieces(self, algorithm):
        texts = [*self.TEXTS, self.NOISE]
        vocabulary = build_vocabulary("sentencepiece", texts, 400, algorithm=algorithm)
        assert vocabulary.count_unknown(self.NOISE) > 0
        assert vocabulary.count_unknown(self.TEXTS[0]) == 0


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_as_many_pieces_as_a_small_corpus_with_rare_characters_supports(algorithm):
    """Characters that are known for 8,000 pieces stay so for the fewer that there can be."""
    draw, rare = random.Random(1), "абвгдежзийклмнопрстуфхцчшщ"
    words = "zwei frauen blicken aus vielen fenstern".split()
    texts = [" ".join(draw.choices(words, k=8)) for _ in range(1500)] + [rare[:13], rare[13:]]
    vocabulary = build_vocabulary("sentencepiece", texts, algorithm=algorithm)
    assert vocabulary.size < 8000
    assert vocabulary.decode(vocabulary.encode(rare)) == rare
