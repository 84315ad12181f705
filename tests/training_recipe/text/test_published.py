"""Vocabularies that came with a model: ids, frames, languages, what is no text, files."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from messages import saying
from published_cases import TEXTS, config, in_order, model, pieces

from training_recipe.text.conventions import Conventions
from training_recipe.text.model_vocabularies import check_fit, in_languages, spare_rows
from training_recipe.text.sentencepiece_table import SentencePieceTable
from training_recipe.text.tokenizers_kinds import ByteLevelBPE
from training_recipe.text.vocabulary import load_vocabulary
from transformer_spec import UserError

TEXT = TEXTS[0]


@pytest.fixture(scope="module")
def vocabulary():
    return in_order()


@pytest.fixture(scope="module")
def told():
    """Marian: a table of ids, and texts that begin with the language of the output."""
    own = model()
    marks = {">>deu<<": 2, ">>fra<<": 3}
    table = {"</s>": 0, "<unk>": 1, **marks}
    table |= {piece: number for number, piece in enumerate(pieces(own)[3:], 4)}
    table["<pad>"] = pad = len(table)
    special = {"</s>": 0, "<unk>": 1, "<pad>": pad}
    conventions = Conventions(
        pad, 1, 0, 0, special=special, after=(0,), marks=(">>", "<<"),
        languages={"deu": 2, "fra": 3},
    )  # fmt: skip
    files = {"source.spm": own, "vocab.json": json.dumps(table).encode()}
    how = {"model": "source.spm", "table": {"file": "vocab.json", "format": "json"}}
    return SentencePieceTable(conventions, files, how)


@pytest.fixture(scope="module")
def bytes_of_text():
    """Byte-level BPE with a few merges."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(TEXTS, 300, special_tokens=special, show_progress=False)
    content = json.loads(trained.to_str())["model"]
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in content["merges"])])
    files = {"vocab.json": json.dumps(content["vocab"]).encode(), "merges.txt": merges.encode()}
    ids = {name: number for number, name in enumerate(special)}
    conventions = Conventions(1, 3, 0, 2, special=ids, before=(0,), after=(2,))
    how = {"vocabulary": "vocab.json", "merges": "merges.txt", "prefix_space": False}
    return ByteLevelBPE(conventions, files, how)


class TestFrames:
    def test_the_language_stands_in_the_frame(self, vocabulary):
        english, german = vocabulary.languages.values()
        assert vocabulary.frame == ((english,), (2,))
        assert vocabulary.speaking("de_DE").frame == ((german,), (2,))
        assert vocabulary.language == "en_XX"  # the other is a copy

    def test_the_decoder_may_start_with_it(self):
        behind = in_order(before=(), after=(2, "language"), starts_with_language=True)
        german = behind.speaking("de_DE")
        assert german.frame == ((), (2, german.languages["de_DE"]))
        assert german.start_id == german.languages["de_DE"]
        assert in_order().start_id is None

    def test_no_language_is_an_error(self):
        with pytest.raises(UserError, check=saying("en_XX", "de_DE", "--languages")):
            in_order(language=None).frame.around([])

    @pytest.mark.parametrize("code", ["de", "de_XX", "deu_Latn", "__de__"])
    def test_an_unknown_code_names_near_ones(self, vocabulary, code):
        with pytest.raises(UserError, check=saying("no", "language", code, "de_DE")):
            vocabulary.speaking(code)


class TestCodesInTexts:
    def test_a_code_is_one_id(self, told):
        ids = told.encode(f">>deu<< {TEXT}")
        assert ids[0] == 2
        assert ids == told.speaking("deu").encode(TEXT) == told.speaking(">>deu<<").encode(TEXT)
        assert told.speaking("fra").encode(f">>deu<<{TEXT}") == ids  # the text's own comes first

    def test_an_unknown_or_missing_code_is_an_error(self, told):
        with pytest.raises(UserError, check=saying(">>deutsch<<", "deu")):
            told.encode(f">>deutsch<< {TEXT}")
        with pytest.raises(UserError, check=saying("language", "deu", "fra")):
            told.encode(TEXT)

    def test_in_the_middle_it_is_text(self, told):
        assert 2 not in told.speaking("fra").encode(f"the >>deu<< {TEXT}")

    def test_of_a_pair_only_the_target_counts(self, told, vocabulary):
        plain = in_order(languages={}, language=None, before=())
        for given_codes in ("fra", "eng,fra"):
            source, target = in_languages((told, plain), given_codes)
            assert (source.language, target) == ("fra", plain)
        source, target = in_languages((vocabulary, vocabulary), "de_DE,en_XX")
        assert (source.language, target.language) == ("de_DE", "en_XX")

    def test_pairs_of_codes_that_do_not_fit(self, vocabulary):
        both = vocabulary, vocabulary
        with pytest.raises(UserError, check=saying("source", "de", "de_DE")) as error:
            in_languages(both, "de,xx")
        assert len(error.value.faults) == 2
        for wrong in ("de_DE", "de_DE,", "a,b,c"):
            with pytest.raises(UserError, check=saying("SOURCE,TARGET", wrong)):
                in_languages(both, wrong)
        plain = in_order(languages={}, language=None, before=())
        with pytest.raises(UserError, check=saying("none to choose")):
            in_languages((plain, plain), "a,b")


class TestTexts:
    def test_special_names_stay_text(self, vocabulary, told):
        """Whoever writes </s> in a text means these letters, and is told what they were read as."""
        text = "the </s> cat <mask> sat en_XX </s>"
        assert vocabulary.special_names_in(text) == ["</s>", "<mask>", "en_XX"]
        found = set(vocabulary.encode(text))
        assert not found & (set(vocabulary.conventions.special.values()) - {3})
        assert vocabulary.special_names_in(TEXT) == []
        assert not {0, told.pad_id} & set(told.encode(">>deu<< a </s> <pad>")[1:])

    def test_letters_that_the_model_lacks_are_no_special_token(self):
        """sentencepiece gives unknown letters in a row as one piece, which a table may hold."""
        own = model()
        assert not set("</>") & set("".join(pieces(own)[3:]))
        special = {"</s>": 0, "<unk>": 1, "<pad>": 2}
        table = {**special, **{piece: n for n, piece in enumerate(pieces(own)[3:], 3)}}
        files = {"a.spm": own, "vocab.json": json.dumps(table).encode()}
        how = {"model": "a.spm", "table": {"file": "vocab.json", "format": "json"}}
        vocabulary = SentencePieceTable(
            Conventions(2, 1, 0, 0, special=special, after=(0,)), files, how
        )
        assert 0 not in vocabulary.encode("</s>")

    def test_decoding_ends_at_the_end_behind_a_token(self, vocabulary):
        ids, (english, german) = vocabulary.encode(TEXT), vocabulary.languages.values()
        assert vocabulary.decode([*ids, 2, *ids]) == TEXT
        assert vocabulary.decode([2, german, *ids, 2, 1, 1]) == TEXT  # as generate returns it
        assert vocabulary.decode([0, english, *ids]) == TEXT
        assert vocabulary.decode([]) == vocabulary.decode([2]) == vocabulary.decode([2, 1]) == ""

    def test_unknown_tokens_are_counted_and_not_written(self, vocabulary):
        text = "the \N{SNOWMAN} cat"
        assert vocabulary.count_unknown(text) == 1
        assert vocabulary.decode(vocabulary.encode(text)).split() == ["the", "cat"]
        assert vocabulary.token(3) == "<unk>"

    def test_rows_without_a_token_are_not_written(self, vocabulary):
        ids = vocabulary.encode(TEXT)
        beyond = vocabulary.size + 3
        assert vocabulary.decode([*ids[:2], beyond, *ids[2:]]) == TEXT
        assert str(beyond) in vocabulary.token(beyond)

    def test_clean_up_as_the_settings_say(self, vocabulary):
        ids = [vocabulary.encode(part) for part in ("the cat", "can")]
        dot = in_order(added={".": 900, " .": 901})
        assert dot.decode([*ids[0], 901]) == "the cat ."
        assert in_order(added={" .": 901}, clean_up=True).decode([*ids[0], 901]) == "the cat."

    def test_added_tokens_are_cut_out_first(self):
        vocabulary = in_order(added={"<new>": 900, "<newer>": 901})
        around = vocabulary.encode("the cat"), vocabulary.encode("sat")
        assert vocabulary.encode("the cat <newer> sat") == [*around[0], 901, *around[1]]
        assert vocabulary.encode("the cat<new><new>") == [*around[0], 900, 900]
        assert vocabulary.decode([*around[0], 900, *around[1]]) == "the cat<new> sat"
        assert vocabulary.size == 902

    def test_bytes(self, bytes_of_text):
        for text in (TEXT, " two  spaces ", "\N{SNOWMAN}\t\N{GRINNING FACE}\n", ""):
            ids = bytes_of_text.encode(text)
            assert bytes_of_text.decode(bytes_of_text.frame.around(ids)) == text
            assert not set(ids) & {0, 1, 2, 3}
        assert not {0, 2} & set(bytes_of_text.encode("<s></s>"))
        assert bytes_of_text.decode(bytes_of_text.encode("<s></s>")) == "<s></s>"
        assert bytes_of_text.decode(bytes_of_text.encode("a\ud800b")) == "a\ufffdb"


ODD = st.text(st.sampled_from("ab \t\n\u00a0\u200b\u0301\u202e\u05d0\U0001f600\ud800\u2581<>/_#"))


class TestOddTexts:
    @settings(max_examples=80, deadline=None)
    @given(ODD)
    @example("")
    @example("   ")
    def test_whatever_is_written_has_ids_of_text(self, vocabulary, bytes_of_text, text):
        for one in (vocabulary, bytes_of_text):
            ids = one.encode(text)
            assert not set(ids) & (set(one.conventions.special.values()) - {one.unk_id})
            assert all(0 <= index < one.size for index in ids)
            assert one.decode(one.frame.around(ids)) == one.decode(ids)
        assert bytes_of_text.decode(bytes_of_text.encode(text)) == text.replace("\ud800", "\ufffd")


class TestDropout:
    def test_bpe_is_cut_at_random_as_the_seed_says(self):
        vocabulary = in_order("bpe")
        usual = [vocabulary.encode(text) for text in TEXTS]
        drawn = vocabulary.sample(TEXTS, 0.5, seed=3)
        assert vocabulary.sample(TEXTS, 0.0, seed=3) == usual != drawn
        assert vocabulary.sample(TEXTS, 0.5, seed=3) == drawn
        assert [vocabulary.decode(ids) for ids in drawn] == list(TEXTS)

    def test_others_are_refused(self, vocabulary, bytes_of_text):
        with pytest.raises(UserError, check=saying("own.model", "BPE-dropout", "bpe")):
            vocabulary.sample(TEXTS, 0.1, 0)
        with pytest.raises(UserError, check=saying("BPE-dropout")):
            bytes_of_text.sample(TEXTS, 0.1, 0)


class TestFiles:
    def test_they_return_byte_for_byte(self, tmp_path, vocabulary, told, bytes_of_text):
        for number, one in enumerate((vocabulary.speaking("de_DE"), told, bytes_of_text)):
            folder = tmp_path / f"{number}"
            folder.mkdir()
            one.save(folder, "source")
            one.save(folder, "target")
            again = load_vocabulary(folder, "target")
            assert type(again) is type(one)
            assert (again.kind, again.size, again.language) == (one.kind, one.size, one.language)
            assert again.conventions == one.conventions or one.language == "de_DE"
            front = ">>deu<< " if one is told else ""
            assert again.encode(front + TEXT) == one.encode(front + TEXT)
            assert {name: (folder / name).read_bytes() for name in one.files} == one.files

    def test_another_file_of_that_name_stays(self, tmp_path, vocabulary):
        (tmp_path / "own.model").write_bytes(b"another")
        with pytest.raises(UserError, check=saying("own.model", "exists")):
            vocabulary.save(tmp_path, "source")
        assert not (tmp_path / "source.json").exists()

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"files": {}}, ["no files"]),
            ({"files": {"../x": ""}}, ["../x"]),
            ({"pad_id": -1}, ["pad_id", "-1"]),
            ({"special": ["<pad>"]}, ["special"]),
            ({"special": {"a": 1, "b": 1}}, ["special", "one id"]),
            ({"language": "fr"}, ["language", "'fr'"]),
            ({"frame": {"before": ["x"], "after": []}}, ["frame", "x"]),
            ({"frame": 3}, ["frame"]),
            ({"marks": [">>"]}, ["marks"]),
            ({"model": "source.json"}, ["no sentencepiece model"]),
            ({"table": {}}, ["no table"]),
            ({"table": {"from": 10**6}}, ["count from"]),
            ({"table": {"pieces": ["a", "a"]}}, ["'a' twice"]),
            ({"first": "abc"}, ["first"]),
        ],
    )
    def test_a_damaged_description(self, tmp_path, vocabulary, change, parts):
        vocabulary.save(tmp_path, "source")
        path = tmp_path / "source.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(UserError, check=saying("source.json", *parts)):
            load_vocabulary(tmp_path, "source")

    @pytest.mark.parametrize(
        "value", [None, [], {}, "x", "../x", -1, 1.5, True, 2**80, [[]], {"a": []}]
    )
    def test_any_value_in_its_place(self, tmp_path, vocabulary, told, bytes_of_text, value):
        """Whatever is damaged, it is read or it is one clear error."""
        for number, one in enumerate((vocabulary, told, bytes_of_text)):
            folder = tmp_path / f"{number}"
            folder.mkdir()
            one.save(folder, "source")
            path = folder / "source.json"
            whole = json.loads(path.read_text())
            for key in whole:
                path.write_text(json.dumps(whole | {key: value}))
                try:
                    load_vocabulary(folder, "source").decode([5])
                except UserError as error:
                    assert "source.json" in str(error)

    def test_every_truncation(self, tmp_path, vocabulary):
        vocabulary.save(tmp_path, "source")
        path = tmp_path / "source.json"
        whole = path.read_text()
        for kept in range(0, len(whole.rstrip()), 7):
            path.write_text(whole[:kept])
            with pytest.raises(UserError, check=saying("source.json")):
                load_vocabulary(tmp_path, "source")

    def test_a_changed_or_missing_file(self, tmp_path, vocabulary):
        vocabulary.save(tmp_path, "source")
        (tmp_path / "own.model").write_bytes(b"x")
        with pytest.raises(UserError, check=saying("own.model", "SHA-256")):
            load_vocabulary(tmp_path, "source")
        (tmp_path / "own.model").unlink()
        with pytest.raises(UserError, check=saying("own.model", "No such file or directory")):
            load_vocabulary(tmp_path, "source")


class TestSizes:
    def test_spare_rows_are_said_and_too_few_are_an_error(self, vocabulary):
        both, size = (vocabulary, vocabulary), vocabulary.size
        check_fit(both, config(size + 5), "it")
        assert spare_rows(both, config(size)) == []
        notes = spare_rows(both, config(size + 5))
        assert len(notes) == 2 and "5 of the" in notes[0]
        with pytest.raises(UserError, check=saying("source", "<mask>", size - 1, "extended")):
            check_fit(both, config(size - 1), "it")

    def test_special_ids_of_another_model(self, vocabulary):
        other = config(vocabulary.size, pad_id=0, bos_id=1)
        with pytest.raises(UserError, check=saying("pad_id", 1, "source", 0)):
            check_fit((vocabulary, vocabulary), other, "it")
