"""Where ids or texts are not those of transformers' tokenizers, each with the reason.

Ours follow the file that a released model was trained with; the library's class of today has lost
part of it, or is silent where a user is mistaken.
"""

import json
import warnings

import pytest
from folders_of_hub import sentences
from messages import saying

from benchmarks.tokenizer_agreement import opened
from training_recipe.text.model_vocabularies import in_languages
from transformer_spec import UserError

CODES = ("en", "de")


@pytest.fixture(scope="module")
def pairs(hub_folders):
    kept = {}

    def pair(name):
        if name not in kept:
            kept[name] = opened(hub_folders(name), CODES)
        return kept[name]

    return pair


def both(pair, text):
    """Our ids of a text and the library's."""
    (source, _), tokenizer = pair
    return source.frame.around(source.encode(text)), tokenizer(text)["input_ids"]


class TestTheModelsOwnFile:
    def test_mbart_normalises(self, pairs):
        """The sentencepiece file holds NFKC; the library's class builds a tokenizer without it."""
        ours, theirs = both(pairs("mbart"), "\ufb01ne")
        assert pairs("mbart")[0][0].unk_id in theirs
        assert ours == both(pairs("mbart"), "fine")[1]

    @pytest.mark.parametrize("name", ["mbart50", "nllb"])
    def test_a_space_at_the_end_is_nothing(self, pairs, name):
        """sentencepiece takes it off; the library leaves a piece that no training text ended in."""
        ours, theirs = both(pairs(name), "Ein Haus. ")
        assert ours == both(pairs(name), "Ein Haus.")[1]
        assert theirs == [*ours[:-1], theirs[-2], ours[-1]]
        assert pairs(name)[0][0].token(theirs[-2]) == "\u2581"

    @pytest.mark.parametrize("name", ["nllb", "nllb-v5"])
    def test_nllb_without_tokenizer_json(self, hub_folders, tmp_path, name):
        """Languages follow the pieces, <mask> is last; the library loses them or shifts them."""
        folder = hub_folders.copy(name, tmp_path / name)
        whole, _ = opened(folder, CODES)
        (folder / "tokenizer.json").unlink()
        pair, tokenizer = opened(folder, CODES)
        assert pair[0].languages == whole[0].languages
        assert pair[0].languages["eng_Latn"] != tokenizer.convert_tokens_to_ids("eng_Latn")

    def test_what_is_special_after_a_second_saving(self, pairs):
        """A folder of M2M100 that the library saved: it writes the language into its texts."""
        (source, _), tokenizer = pairs("m2m100-v5")
        ids, text = tokenizer("two")["input_ids"], "two"
        assert tokenizer.decode(ids, skip_special_tokens=True) != text == source.decode(ids)

    def test_a_source_is_decoded_by_its_own_table(self, pairs):
        """With two tables the library has but the target's for decoding."""
        (source, _), tokenizer = pairs("marian-separate")
        ids, text = source.encode("two men"), "two men"
        assert tokenizer.decode(ids, skip_special_tokens=True) != text == source.decode(ids)

    def test_rows_without_a_token(self, pairs):
        """The library writes <unk> where M2M100's made-up rows come, with special tokens off."""
        (source, _), tokenizer = pairs("m2m100")
        ids = [*source.encode("two"), source.size + 2]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "two<unk>"
        assert source.decode(ids) == "two"


class TestNamesInTexts:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("marian", "a </s> b"), ("marian", "<pad>"), ("bart", "a <mask> b"), ("bart", "</s>"),
            ("mbart", "en_XX a"), ("mbart50", "a<mask>b"), ("m2m100", "a __de__ b"),
            ("nllb", "a </s> b"), ("nllb", "deu_Latn"),
        ],
    )  # fmt: skip
    def test_special_tokens_stay_text(self, pairs, name, text):
        """A </s> in a corpus is five characters; the library ends the sentence there."""
        source = pairs(name)[0][0]
        ours, theirs = both(pairs(name), text)
        control = set(source.conventions.special.values()) - {source.unk_id}
        framing = len(control.intersection(source.frame.around([])))
        assert len([i for i in ours if i in control]) == framing
        assert len([i for i in theirs if i in control]) > framing
        assert source.special_names_in(text)

    def test_a_code_with_spaces_in_it_is_text(self, pairs):
        """The library makes one unknown token of all from >> to <<."""
        ours, theirs = both(pairs("marian"), ">> two men << stand")
        assert len(ours) > len(theirs)
        assert "two men" in pairs("marian")[0][0].decode(ours)

    def test_lone_surrogates(self, pairs):
        """Undecodable bytes of a command line; the library raises an error of its parts."""
        for name in ("marian", "bart", "nllb"):
            (source, _), tokenizer = pairs(name)
            with pytest.raises((TypeError, RuntimeError, UnicodeError)):
                tokenizer("two \ud800 men")
            assert source.decode(source.encode("two \ud800 men")).split()[0] == "two"
            assert name == "bart" or source.count_unknown("two \ud800 men") == 1


class TestMistakesThatTheLibraryPassesOver:
    def test_an_unknown_language_in_a_text(self, pairs):
        (source, _), tokenizer = pairs("marian-multi")
        assert tokenizer(">>ger<< two")["input_ids"][0] == source.unk_id
        with pytest.raises(UserError, check=saying("'>>ger<<'", "deu", "fra", "nld")):
            source.encode(">>ger<< two")

    def test_no_language_in_a_text(self, pairs, hub_folders):
        pair, _ = opened(hub_folders("marian-multi"), CODES)
        unset = pair[0].speaking("deu")
        unset._speak(None)
        with pytest.raises(UserError, check=saying("language", "deu", "fra", "nld")):
            unset.encode("two")

    def test_a_language_that_the_model_does_not_have(self, pairs):
        (source, target), tokenizer = pairs("nllb")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer.src_lang = "german"
        assert tokenizer("two")["input_ids"][0] == source.unk_id
        tokenizer.src_lang = "eng_Latn"
        with pytest.raises(UserError, check=saying("source", "'en'", "eng_Latn")) as error:
            in_languages((source, target), "en,de")
        assert "deu_Latn" in error.value.faults[1]

    @pytest.mark.parametrize("name", ["m2m100", "nllb"])
    def test_no_language_at_all(self, hub_folders, tmp_path, name):
        """The library takes English for both."""
        folder = hub_folders.copy(name, tmp_path / name)
        path = folder / "tokenizer_config.json"
        about = json.loads(path.read_text()) | {"src_lang": None}
        path.write_text(json.dumps(about))
        from benchmarks.tokenizer_agreement import vocabularies

        for vocabulary in vocabularies(folder):
            assert vocabulary.encode("two")
            with pytest.raises(UserError, check=saying("language", "--languages")):
                _ = vocabulary.frame


def test_unknown_tokens_are_left_out_as_by_the_library(pairs):
    """Texts that were cut show theirs in a note; decoded ones are the library's, without <unk>."""
    text = "baseball player # 38"
    for name in ("marian", "mbart", "m2m100", "nllb"):
        (source, _), tokenizer = pairs(name)
        ids, _ = both(pairs(name), text)
        assert source.count_unknown(text) >= 1
        assert source.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True)
        assert "#" not in source.decode(ids) and "unk" not in source.decode(ids)


def test_every_sentence_of_a_corpus_ends_at_its_end(pairs):
    """Frames of a target are the library's labels: mBART's language is behind the end."""
    text = sentences("val", "de")[0]
    for name in ("mbart", "mbart50", "m2m100", "nllb", "marian", "bart"):
        (_, target), tokenizer = pairs(name)
        labels = tokenizer(text_target=text)["input_ids"]
        assert target.frame.around(target.encode(text)) == labels
        assert target.start_id == (labels[-1] if name == "mbart" else None)
