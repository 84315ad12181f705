"""T5, mT5, UMT5, MADLAD, ByT5, CodeT5: ids and texts are those of transformers, or it is said."""

import json
import shutil
import warnings

import pytest
from folders_of_hub import sentences
from messages import saying
from published_cases import TEXTS, pieces, write_json
from t5_folders import (
    GAPS,
    INSIDE,
    MODEL,
    ODD,
    OF_CODE,
    OF_MADLAD,
    USUAL,
    of_madlad,
    pieces_of_t5,
    read,
    write,
    write_code,
)
from tokenizers import Tokenizer, models
from tokenizers.trainers import BpeTrainer

from training_recipe.text.model_vocabularies import in_languages
from training_recipe.text.vocabulary import load_vocabulary
from transformer_spec import UserError

ALL = (*TEXTS, *ODD, *GAPS)
SENTENCE = "translate English to German: the cat sat"


def library(folder, name="AutoTokenizer"):
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, name).from_pretrained(folder)


def agree(pair, tokenizer, texts=ALL):
    """Ids of both sides are the library's, and so are texts of ids, without what is no text."""
    for vocabulary in pair:
        control = set(vocabulary.conventions.special.values())
        for text in texts:
            ids = vocabulary.frame.around(vocabulary.encode(text))
            assert ids == tokenizer(text)["input_ids"], text
            plain = [index for index in ids if index not in control]
            assert vocabulary.decode(ids) == tokenizer.decode(plain), text


class TestT5:
    @pytest.mark.parametrize("about", [USUAL, None])
    def test_pieces_and_then_sentinels_in_reverse(self, tmp_path, about):
        count = len(pieces(pieces_of_t5()))
        folder = write(tmp_path, pieces_of_t5(), about)
        source, _ = pair = read(folder, 256)
        agree(pair, library(folder))
        assert source.encode("<extra_id_0><extra_id_99>") == [count + 99, count]
        assert (source.frame, source.size) == (((), (1,)), count + 100)
        assert source.encode(SENTENCE) == library(folder)(SENTENCE)["input_ids"][:-1]

    def test_sentinels_that_are_listed(self, tmp_path):
        """Published folders list the names in order, and the ids are in reverse all the same."""
        names = [f"<extra_id_{n}>" for n in range(7)]
        about = {"tokenizer_class": "T5Tokenizer", "additional_special_tokens": names}
        folder = write(tmp_path, pieces_of_t5(), {**about, "extra_ids": 7})
        agree(read(folder, 256), library(folder), (*TEXTS, "a <extra_id_6> b <extra_id_0>"))

    @pytest.mark.parametrize("with_pieces", [True, False])
    def test_a_folder_that_the_library_saved(self, tmp_path, with_pieces):
        """tokenizer.json, beside the pieces or alone; sentinels have their ids in it."""
        before = write(tmp_path, pieces_of_t5(), USUAL)
        folder = tmp_path / "saved"
        library(before).save_pretrained(folder)
        shutil.copy(before / "config.json", folder)
        if with_pieces:
            shutil.copy(before / MODEL, folder)
        source, target = pair = read(folder, 256)
        agree(pair, library(folder))
        assert target.kind == ("sentinel_pieces" if with_pieces else "tokenizer_json")
        assert source.decode(source.encode(GAPS[0])) == "the cat<extra_id_0> mat"

    def test_rules_of_added_tokens(self, tmp_path):
        """Beside the pieces as tokenizer.json has them: whole words, spaces taken along."""
        from transformers import AddedToken

        before, folder = write(tmp_path, pieces_of_t5(), USUAL), tmp_path / "saved"
        tokenizer = library(before)
        rules = {"cat": "single_word", "at": "single_word", "<l>": "lstrip", "<r>": "rstrip"}
        tokenizer.add_tokens([AddedToken(n, **{rule: True}) for n, rule in rules.items()])
        tokenizer.save_pretrained(folder)
        for name in ("config.json", MODEL):
            shutil.copy(before / name, folder)
        around = (
            "{0}",
            "the {0} sat",
            "s{0}",
            "{0}s",
            "({0}),",
            " {0}  {0} ",
            "{0}{0}",
            "{0}_<r> a",
        )
        texts = [text.format(name) for name in rules for text in around]
        source, _ = pair = read(folder, 256)
        agree(pair, library(folder), (*texts, *TEXTS))
        cat = source.encode("cat")
        assert len(cat) == 1 and not set(cat) & set(source.encode("cats scat"))

    def test_sentences(self, tmp_path):
        english, german = sentences("val", "en"), sentences("val", "de")
        folder = write(tmp_path, pieces_of_t5((*english, *german), 1000), USUAL)
        agree(read(folder, 1152), library(folder), [*english[:150], *german[:150]])

    def test_written_and_read_again(self, tmp_path):
        pair = read(write(tmp_path, pieces_of_t5(), USUAL), 256)
        (kept := tmp_path / "kept").mkdir()
        pair[0].save(kept, "source")
        again = load_vocabulary(kept, "source")
        ids = pair[0].encode(GAPS[0])
        assert (again.encode(GAPS[0]), again.decode(ids)) == (ids, pair[0].decode(ids))
        assert (kept / MODEL).read_bytes() == pieces_of_t5()


class TestRelatives:
    def test_mt5_has_its_sentinels_inside(self, tmp_path):
        data = pieces_of_t5(size=160, user_defined_symbols=INSIDE)
        about = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
        folder = write(tmp_path, data, about, "mt5")
        source, _ = pair = read(folder, 256, "mt5")
        assert source.size == len(pieces(data))
        agree(pair, library(folder))
        assert source.token(source.encode("the <extra_id_0> mat")[3]) == "\u2581<extra_id_0>"

    def test_mt5_whose_sentinels_are_listed_as_they_are_spelled_inside(self, tmp_path):
        data = pieces_of_t5(size=160, user_defined_symbols=INSIDE)
        about = {"tokenizer_class": "MT5Tokenizer", "extra_ids": 0}
        about |= {"additional_special_tokens": INSIDE.split(",")}
        source, _ = read(write(tmp_path, data, about, "mt5"), 256, "mt5")
        assert source.encode("<extra_id_0>") == [pieces(data).index("\u2581<extra_id_0>")]

    def test_umt5_has_three_hundred(self, tmp_path):
        """AutoTokenizer reads no pieces for this family; the class of T5 does."""
        about = {"tokenizer_class": "T5Tokenizer", "extra_ids": 300}
        folder = write(tmp_path, pieces_of_t5(), about, "umt5")
        source, _ = pair = read(folder, 384, "umt5")
        agree(pair, library(folder, "T5Tokenizer"))
        assert source.encode("<extra_id_0>") == [len(pieces(pieces_of_t5())) + 299]

    def test_byt5_has_bytes_and_no_file(self, tmp_path):
        folder = write(tmp_path, None, {"tokenizer_class": "ByT5Tokenizer"})
        source, _ = pair = read(folder, 384)
        agree(pair, library(folder), (*TEXTS, *GAPS, *ODD))
        assert source.encode("a<extra_id_0>") == [97 + 3, 259]  # the first one, not the last
        assert (source.size, source.decode([3 + 0xC3, 3 + 97, 1])) == (384, "a")
        source.save(tmp_path, "source")
        assert load_vocabulary(tmp_path, "source").encode("\u20ac") == source.encode("\u20ac")

    def test_byt5_by_its_config_alone(self, tmp_path):
        write_json(tmp_path / "config.json", {"tokenizer_class": "ByT5Tokenizer"})
        assert read(tmp_path, 384)[0].encode("ab") == [100, 101]

    def test_byt5_as_the_library_saves_it(self, tmp_path):
        transformers = pytest.importorskip("transformers")
        transformers.ByT5Tokenizer().save_pretrained(write(tmp_path, None))
        agree(read(tmp_path, 384), library(tmp_path), (*TEXTS, *GAPS))

    def test_codet5_is_byte_level(self, tmp_path):
        rows = write_code(tmp_path)
        source, _ = pair = read(tmp_path, rows, **OF_CODE)
        agree(pair, library(tmp_path))
        assert (source.frame, source.encode("<extra_id_0>")) == (((1,), (2,)), [rows - 1])

    def test_pile_t5_has_the_pieces_of_llama(self, tmp_path):
        """tokenizer.json alone, whose byte-pair model keeps its bytes."""
        transformers = pytest.importorskip("transformers")
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        special = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
        trainer = BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
        made.train_from_iterator([f"\u2581{text}" for text in TEXTS], trainer)
        model = json.loads(made.to_str())["model"]
        transformers.LlamaTokenizer(
            vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]],
            add_bos_token=False, add_eos_token=True, pad_token="<pad>",
            extra_special_tokens=["<extra_id_0>", "<extra_id_1>"],
        ).save_pretrained(write(tmp_path, None, family="umt5"))  # fmt: skip
        theirs = library(tmp_path)
        ids = {"pad_id": theirs.pad_token_id, "unk_id": 0, "eos_id": 2, "bos_id": 1}
        source, _ = pair = read(tmp_path, 512, "umt5", **ids)
        agree(pair, theirs, (*TEXTS, *ODD, *GAPS[:4]))
        assert source.decode(source.encode("k\u00e4t")) == "k\u00e4t"


class TestMadlad:
    @pytest.fixture
    def folder(self, tmp_path):
        about = {**USUAL, "extra_ids": 0, "additional_special_tokens": [], "pad_token": "<s>"}
        return write(tmp_path, of_madlad(), about)

    def test_a_text_begins_with_a_language(self, folder):
        source, _ = pair = read(folder, 384, **OF_MADLAD)
        agree(pair, library(folder), [f"<2de> {text}" for text in TEXTS] + ["<2fr>the cat"])
        assert list(source.languages) == ["de", "fr"]
        assert [source.token(i) for i in source.encode("<2de> a")[:2]] == ["\u2581", "<2de>"]

    def test_a_language_may_be_chosen(self, folder):
        source, target = in_languages(read(folder, 384, **OF_MADLAD), "de")
        assert source.encode("the cat") == source.encode("<2de> the cat")
        assert source.encode("<2fr> the cat")[1] == source.languages["fr"]
        assert target.encode("die") == source.encode("die")[2:]

    def test_a_missing_or_unknown_one_is_an_error(self, folder):
        source, _ = read(folder, 384, **OF_MADLAD)
        with pytest.raises(UserError, check=saying("language", "de, fr")):
            source.encode("the cat")
        with pytest.raises(UserError, check=saying("<2xx>", "de, fr")):
            source.encode("<2xx> the cat")

    def test_its_ids_are_known_without_settings(self, tmp_path):
        """Where only config.json says which id pads."""
        source, _ = read(write(tmp_path, of_madlad()), 512, **OF_MADLAD)
        assert (source.pad_id, source.unk_id, source.eos_id) == (1, 0, 2)


class TestDifferences:
    def test_bytes_of_unknown_characters_are_kept(self, tmp_path):
        """The model has pieces of bytes; the library's tokenizer makes one <unk> of all."""
        folder = write(tmp_path, pieces_of_t5(size=360, byte_fallback=True), USUAL)
        (source, _), theirs = read(folder, 512), library(folder)
        ids = source.encode("k\u00e4t")
        assert [source.token(i) for i in ids if i < 259][-2:] == ["<0xC3>", "<0xA4>"]
        assert (source.decode(ids), source.count_unknown("k\u00e4t")) == ("k\u00e4t", 0)
        assert 2 in theirs("k\u00e4t")["input_ids"]

    def test_every_sentence_is_the_model_s_own(self, tmp_path):
        """What the library cuts otherwise has a character that only bytes can spell."""
        from sentencepiece import SentencePieceProcessor

        texts = (*sentences("val", "en"), *sentences("val", "de"))
        own = pieces_of_t5(texts, 1200, byte_fallback=True, character_coverage=0.999)
        folder = write(tmp_path, own, USUAL)
        (source, _), theirs = read(folder, 1536), library(folder)
        model = SentencePieceProcessor(model_proto=own)  # pyright: ignore[reportCallIssue]
        other = 0
        for text in texts[::7]:
            ids = source.encode(text)
            assert ids == model.encode(text) and source.decode(ids) == model.decode(ids)
            if ids != theirs(text)["input_ids"][:-1]:
                assert any(source.token(index).startswith("<0x") for index in ids)
                other += 1
        assert 0 < other < len(texts) / 14

    def test_what_madlad_does_not_know(self, tmp_path):
        """The library's class takes 2 for unknown in every model: here that is </s>."""
        ids = {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2}
        about = {**USUAL, "extra_ids": 0, "additional_special_tokens": [], "pad_token": "<s>"}
        folder = write(tmp_path, pieces_of_t5(**ids), about)
        (source, _), theirs = read(folder, 64, **OF_MADLAD), library(folder)
        ours = source.frame.around(source.encode("a # b"))
        assert theirs("a # b")["input_ids"] == [2 if index == 0 else index for index in ours]

    @pytest.mark.parametrize("text", ["a </s>", "<pad> a", "a<unk>b"])
    def test_special_tokens_stay_text(self, tmp_path, text):
        folder = write(tmp_path, pieces_of_t5(size=360, byte_fallback=True), USUAL)
        (source, _), theirs = read(folder, 512), library(folder)
        assert not {0, 1, 2} & set(source.encode(text))
        assert {0, 1, 2} & set(theirs(text)["input_ids"][:-1])
        assert source.decode(source.encode(text)) == text

    def test_outputs_show_sentinels(self, tmp_path):
        """With skip_special_tokens the library takes them out, and one gap runs into the next."""
        folder = write(tmp_path, pieces_of_t5(), USUAL)
        (_, target), theirs = read(folder, 256), library(folder)
        ids = [0, *theirs("<extra_id_0> the <extra_id_1> cat")["input_ids"]]
        assert target.decode(ids) == "<extra_id_0> the<extra_id_1> cat"
        assert theirs.decode(ids, skip_special_tokens=True) == "the cat"


class TestWrongInput:
    def test_more_tokens_than_rows(self, tmp_path):
        folder = write(tmp_path, pieces_of_t5(), USUAL)
        size = len(pieces(pieces_of_t5())) + 100
        assert read(folder, size)
        said = saying(f"{size:,} tokens", f"{size - 1:,} rows", "'<extra_id_0>'")
        with pytest.raises(UserError, check=said):
            read(folder, size - 1)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"extra_ids": "many"}, ("extra_ids", "'many'")),
            ({"additional_special_tokens": ["<extra_id_0>"]}, ("extra_ids", "100", "are 1;")),
            (
                {"tokenizer_class": "GemmaTokenizer"},
                ("GemmaTokenizer", "T5Tokenizer", "ByT5Tokenizer"),
            ),
            ({"eos_token": "<end>"}, ("eos_token '<end>' has no id",)),
        ],
    )
    def test_settings_that_are_not_so(self, tmp_path, change, words):
        folder = write(tmp_path, pieces_of_t5(), USUAL | change)
        with pytest.raises(UserError, check=saying(*words)):
            read(folder, 256)

    def test_files_that_are_not_there_or_cut_short(self, tmp_path):
        folder = write(tmp_path, None, USUAL)
        with pytest.raises(UserError, check=saying(MODEL, "missing", "tokenizer.json")):
            read(folder, 256)
        (folder / MODEL).write_bytes(pieces_of_t5()[:99])
        with pytest.raises(UserError, check=saying(MODEL, "cut short")):
            read(folder, 256)
        assert json.loads((folder / "config.json").read_text()) == {"model_type": "t5"}
