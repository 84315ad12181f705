"""Texts as ids of Whisper's vocabularies: numbers of GPT-2's, files of all ages, real ones."""

from __future__ import annotations

import json

import pytest
from messages import saying
from real_whispers import SIZES, real_whisper
from speech_tokenizers import MERGES, SPACE, THE, special, write_json, write_slow

pytest.importorskip("tokenizers")

from training_recipe.speech.tokenizer import SpeechTokenizer, repaired, tokenizer_json  # noqa: E402
from training_recipe.speech.tokens import suppressed, suppressed_first  # noqa: E402
from transformer_spec import UserError  # noqa: E402

ENGLISH, SEVERAL, LARGEST = 51864, 51865, 51866


@pytest.fixture
def english(tmp_path) -> SpeechTokenizer:
    return SpeechTokenizer.load(write_json(tmp_path, ENGLISH), ENGLISH)


class TestText:
    def test_the_numbers_are_those_of_gpt_2(self, english):
        assert english.encode(" the") == [THE] and english.encode(" ") == [SPACE]
        assert english.encode("!a é") == [0, 64, SPACE, 127, 102]
        assert english.encode("in the rein") == [259, THE, SPACE, 260, 259]
        assert english.encode("") == []

    @pytest.mark.parametrize("text", [" the rain", "日本 ♪", "don't\n\n  it", "<|en|>", "\u0301"])
    def test_back_and_forth(self, english, text):
        ids = english.encode(text)
        assert english.decode(ids) == text and max(ids) < english.tokens.end

    def test_what_is_no_text_is_passed_over(self, english):
        tokens = english.tokens
        ids = [tokens.start, tokens.first_timestamp, THE, tokens.first_timestamp + 7, tokens.end]
        assert english.decode(ids) == " the" and english.decode([51000]) == ""
        assert english.decode([127]) == "\N{REPLACEMENT CHARACTER}"

    def test_a_lone_surrogate_is_replaced(self, english):
        assert english.decode(english.encode("a\ud800b")) == "a\N{REPLACEMENT CHARACTER}b"

    def test_what_is_never_written_is_found_by_the_texts(self, english):
        ids = suppressed(english.tokens, english.encode)
        assert {1, 2, 6 + 1, english.tokens.start, english.tokens.transcribe} <= set(ids)
        assert suppressed_first(english.tokens, english.encode) == (SPACE, 50256)


class TestFiles:
    @pytest.mark.parametrize("size", [ENGLISH, SEVERAL, LARGEST])
    @pytest.mark.parametrize("old", [False, True])
    def test_every_token_is_spelled(self, tmp_path, size, old):
        found = SpeechTokenizer.load(write_json(tmp_path, size, old=old), size).spelled()
        assert len(found) == size and found[THE] == "Ġthe" and found[SPACE] == "Ġ"
        names = special(size, old)
        assert [found[index] for index in names.values()] == list(names)
        assert found[-1501] == "<|0.00|>" and found[-1] == "<|30.00|>"
        assert (found[50256] == "") == (size != ENGLISH)

    def test_vocab_and_merges(self, tmp_path, english):
        slow = SpeechTokenizer.load(write_slow(tmp_path / "slow", ENGLISH), ENGLISH)
        for text in (" the rain", "é ♪"):
            assert slow.encode(text) == english.encode(text)
        assert slow.notes == [] and slow.spelled() == english.spelled()

    def test_a_tokenizer_json_of_them(self, tmp_path, english):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "tokenizer.json").write_text(tokenizer_json(english))
        again = SpeechTokenizer.load(tmp_path / "new", ENGLISH)
        assert again.encode("in the rein") == english.encode("in the rein")
        from tokenizers import Tokenizer

        theirs = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
        assert theirs.encode(" the", add_special_tokens=False).ids == [THE]
        ids = {name: theirs.token_to_id(name) for name in special(ENGLISH)}
        assert ids == special(ENGLISH)

    def test_old_spellings_are_the_same_tokens(self, tmp_path):
        place = write_json(tmp_path, ENGLISH) / "tokenizer.json"
        place.write_text(place.read_text().replace("<|he|>", "<|iw|>"))
        assert SpeechTokenizer.load(tmp_path, ENGLISH).tokens.language("he") == 50278

    @pytest.mark.parametrize(("there", "wanted"), [(SEVERAL, ENGLISH), (SEVERAL, LARGEST)])
    def test_another_vocabulary(self, tmp_path, there, wanted):
        write_json(tmp_path, there)
        with pytest.raises(UserError, check=saying("tokenizer.json", "another vocabulary", wanted)):
            SpeechTokenizer.load(tmp_path, wanted)

    def test_none(self, tmp_path):
        with pytest.raises(UserError, check=saying(tmp_path, "no tokenizer.json", "vocab.json")):
            SpeechTokenizer.load(tmp_path, ENGLISH)

    @pytest.mark.parametrize(
        "content",
        [
            "{", "[]", "{}", '{"model": 3}', '{"model": {"type": "Unigram"}}',
            '{"model": {"type": "BPE", "vocab": [], "merges": []}}',
            '{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0}, '
            '"merges": ["a"]}}',
            '{"pre_tokenizer": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0}, '
            '"merges": ["a b"]}}',
            '{"pre_tokenizer": {"type": "Metaspace"}, "model": {"type": "BPE"}}',
        ],
    )  # fmt: skip
    def test_damaged(self, tmp_path, content):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, check=saying(tmp_path / "tokenizer.json")):
            SpeechTokenizer.load(tmp_path, ENGLISH)


class TestTheFirstMerge:
    """Of older multilingual files; what is made of it cuts words in two where it is not there."""

    @pytest.mark.parametrize("write", [write_json, write_slow])
    def test_it_is_put_back_and_said(self, tmp_path, write):
        found = SpeechTokenizer.load(write(tmp_path, ENGLISH, first=1), ENGLISH)
        assert found.encode(" the") == [THE]
        (note,) = found.notes
        assert "'Ġ t'" in note and "put back" in note and str(tmp_path) in note

    @pytest.mark.parametrize("write", [write_json, write_slow])
    def test_a_file_is_mended_and_is_then_the_whole_one(self, tmp_path, write):
        name = "tokenizer.json" if write is write_json else "merges.txt"
        whole = (write(tmp_path / "whole", ENGLISH) / name).read_bytes()
        lacking = (write(tmp_path / "lacking", ENGLISH, first=1) / name).read_bytes()
        mended = repaired(name, lacking)
        assert mended is not None and mended.rstrip() == whole.rstrip()
        assert repaired(name, whole) is None and repaired(name, mended) is None

    def test_merges_that_are_pairs_stay_pairs(self, tmp_path):
        place = write_json(tmp_path, ENGLISH, first=1) / "tokenizer.json"
        content = json.loads(place.read_text())
        content["model"]["merges"] = [list(pair) for pair in MERGES[1:]]
        mended = repaired("tokenizer.json", json.dumps(content).encode())
        assert mended is not None
        assert json.loads(mended)["model"]["merges"] == [list(pair) for pair in MERGES]

    @pytest.mark.parametrize("data", [b"{", b"\xff", b"[]", b'{"model": 3}', b"a\nb"])
    def test_what_is_damaged_is_left_to_who_reads_it(self, data):
        assert repaired("tokenizer.json", data) is None and repaired("vocab.json", data) is None


@pytest.mark.parametrize("name", SIZES)
class TestRealFiles:
    def test_what_they_spell_and_never_write(self, name):
        folder = real_whisper(name)
        found = SpeechTokenizer.load(folder, SIZES[name])
        listed = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
        assert found.spelled() == listed[:-1] and listed[-1] == ""
        config = json.loads((folder / "config.json").read_text())
        assert list(suppressed(found.tokens, found.encode)) == config["suppress_ids"]
        first = suppressed_first(found.tokens, found.encode)
        assert list(first) == config["suppress_ids_begin"]

    def test_every_word_is_its_own_token(self, name):
        """Of the old multilingual file only once the merge is put back."""
        found = SpeechTokenizer.load(real_whisper(name), SIZES[name])
        assert len(found.notes) == (name == "base")
        numbers = {"tiny.en": [262, 284, 326], "base": [264, 281, 300]}
        assert [i for w in (" the", " to", " that") for i in found.encode(w)] == numbers[name]
