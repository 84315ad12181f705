"""Families beside the Hub's folders: files as their libraries write them, in small."""

import json
import warnings

import pytest
from messages import saying
from published_cases import TEXTS, byte_pairs, config, in_order, model, pieces, write_json

from convert.tokenizers import read_vocabularies
from transformer_spec import UserError

MODEL = "sentencepiece.bpe.model"
TEXT = TEXTS[0]
MORE = (*TEXTS, "", "a # b", "two  spaces", "tab\there", "caf\u00e9", " leading", "it 's , so .")


def agree(folder, family, rows, texts=MORE, **ids):
    """Ids and texts of both sides are those of the library; the two vocabularies."""
    transformers = pytest.importorskip("transformers")
    content = json.loads((folder / "config.json").read_text())
    pair = read_vocabularies(folder, family, content, config(rows, **ids))
    assert pair is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for side, vocabulary in zip(("text", "text_target"), pair, strict=True):
        theirs = tokenizer(**{side: list(texts)})["input_ids"]
        assert [vocabulary.frame.around(vocabulary.encode(text)) for text in texts] == theirs
        written = tokenizer.batch_decode(theirs, skip_special_tokens=True)
        assert [vocabulary.decode(ids) for ids in theirs] == written
    return pair


class TestTransformers:
    def test_pegasus(self, tmp_path):
        """Two masks and 101 unused tokens come before the pieces but padding and end."""
        own = model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        (tmp_path / "spiece.model").write_bytes(own)
        write_json(tmp_path / "config.json", {"model_type": "pegasus"})
        ids = {"pad_id": 0, "eos_id": 1, "unk_id": 105, "decoder_start_id": 0}
        source, _ = agree(tmp_path, "pegasus", len(pieces(own)) + 103, **ids)
        assert source.frame == ((), (1,))

    @pytest.mark.parametrize(("kind", "own"), [("base", 4), ("multi", 7)])
    def test_plbart(self, tmp_path, kind, own):
        (tmp_path / MODEL).write_bytes(model())
        write_json(tmp_path / "config.json", {"model_type": "plbart"})
        about = {"tokenizer_class": "PLBartTokenizer", "language_codes": kind}
        about |= {"src_lang": "python", "tgt_lang": "en_XX"}
        write_json(tmp_path / "tokenizer_config.json", about)
        source, target = agree(tmp_path, "plbart", len(pieces(model())) + 1 + own)
        assert (source.language, target.language) == ("python", "en_XX")
        assert target.start_id == target.languages["en_XX"]
        assert target.decode(target.encode("it 's , so .")) == "it's, so."  # by default

    @pytest.mark.parametrize("spaced", [False, True])
    def test_byte_pairs_without_tokenizer_json(self, tmp_path, spaced):
        rows = byte_pairs(tmp_path)
        write_json(tmp_path / "config.json", {"model_type": "bart"})
        write_json(tmp_path / "tokenizer_config.json", {"add_prefix_space": spaced})
        source, _ = agree(tmp_path, "bart", rows)
        assert source.token(source.encode("the")[0]).startswith("\u0120") == spaced

    def test_blenderbot_ends_a_text(self, tmp_path):
        """The released model reads </s> behind a text; the library of today leaves it out."""
        rows = byte_pairs(tmp_path)
        write_json(tmp_path / "config.json", {"model_type": "blenderbot"})
        transformers = pytest.importorskip("transformers")
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
        pair = read_vocabularies(tmp_path, "blenderbot", {}, config(rows))
        for text in MORE:
            assert pair[0].encode(text) == tokenizer(text)["input_ids"]
        assert pair[0].frame == ((), (2,))

    @pytest.mark.parametrize("cleaned", [False, True])
    def test_a_tokenizer_of_nobodys_class(self, tmp_path, cleaned):
        """Trained by tokenizers and saved as PreTrainedTokenizerFast: its own template counts."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
        from tokenizers.processors import TemplateProcessing
        from tokenizers.trainers import UnigramTrainer

        made = Tokenizer(models.Unigram())
        made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        options = {"vocab_size": 60, "unk_token": "<unk>", "show_progress": False}
        trainer = UnigramTrainer(special_tokens=special, **options)
        made.train_from_iterator(TEXTS, trainer)
        ends = [("<s>", 0), ("</s>", 2)]
        made.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
        made.save(str(tmp_path / "tokenizer.json"))
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
        about |= {"bos_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        about |= {"clean_up_tokenization_spaces": cleaned}
        write_json(tmp_path / "tokenizer_config.json", about)
        write_json(tmp_path / "config.json", {"model_type": "bart"})
        source, _ = agree(tmp_path, "bart", made.get_vocab_size())
        assert source.frame == ((0,), (2,))

    def test_nllb_in_its_old_way(self, tmp_path):
        """legacy_behaviour: the language behind the end, on both sides."""
        (tmp_path / MODEL).write_bytes(model("bpe"))
        about = {"tokenizer_class": "NllbTokenizer", "legacy_behaviour": True}
        about |= {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"}
        write_json(tmp_path / "tokenizer_config.json", about)
        rows = len(pieces(model("bpe"))) + 1 + 202 + 1 + 2
        source, target = read_vocabularies(tmp_path, "m2m100", {}, config(rows))
        assert source.frame == ((), (2, source.languages["eng_Latn"]))
        assert target.frame == ((), (2, target.languages["deu_Latn"]))
        assert target.start_id is None

    def test_a_language_that_a_user_added(self, tmp_path):
        (tmp_path / MODEL).write_bytes(model("bpe"))
        rows = len(pieces(model("bpe"))) + 1 + 202 + 1
        write_json(tmp_path / "added_tokens.json", {"tyv_Cyrl": rows})
        about = {"tokenizer_class": "NllbTokenizer", "additional_special_tokens": ["tyv_Cyrl"]}
        write_json(tmp_path / "tokenizer_config.json", about)
        source, _ = read_vocabularies(tmp_path, "m2m100", {}, config(rows + 1))
        assert source.speaking("tyv_Cyrl").frame == ((rows,), (2,))
        assert rows not in source.encode("tyv_Cyrl")


class TestFairseq:
    def dictionary(self, folder, name="dict.txt", more=()):
        lines = [*pieces(model())[3:], *more]
        text = "".join(f"{piece} {100 - n}\n" for n, piece in enumerate(lines))
        (folder / name).write_text(text, encoding="utf-8")
        return len(lines) + 4

    def test_a_dictionary_of_both_sides(self, tmp_path):
        (tmp_path / "sentence.bpe.model").write_bytes(model())
        rows = self.dictionary(tmp_path, more=["madeupword0000"])
        source, target = read_vocabularies(tmp_path, "fairseq", {}, config(rows))
        assert source.encode(TEXT) == in_order().encode(TEXT)  # the same order, no language
        assert source.frame == target.frame == ((), (2,))
        assert target.decode([*source.encode(TEXT), 2]) == TEXT

    def test_a_dictionary_of_each_side(self, tmp_path):
        settings = {"source_lang": "en", "target_lang": "de"}
        for code in ("en", "de"):
            (tmp_path / f"spm.{code}.model").write_bytes(model())
        rows = self.dictionary(tmp_path, "dict.en.txt", more=["x"])
        assert self.dictionary(tmp_path, "dict.de.txt") == rows - 1
        sizes = config(rows, target_vocab_size=rows - 1)
        source, target = read_vocabularies(tmp_path, "fairseq", settings, sizes)
        assert set(source.files) == {"spm.en.model", "dict.en.txt"}
        assert (source.size, target.size) == (rows, rows - 1)

    def test_what_is_not_known(self, tmp_path):
        rows = self.dictionary(tmp_path)
        with pytest.raises(UserError, check=saying("no sentencepiece model", "cut")):
            read_vocabularies(tmp_path, "fairseq", {}, config(rows))
        for name in ("a.model", "b.model"):
            (tmp_path / name).write_bytes(model())
        with pytest.raises(UserError, check=saying("a.model, b.model", "source")):
            read_vocabularies(tmp_path, "fairseq", {}, config(rows))
        told = {"lang_tok_replacing_bos_eos": True}
        with pytest.raises(UserError, check=saying("lang_tok_replacing_bos_eos")):
            read_vocabularies(tmp_path, "fairseq", told, config(rows))


class TestOthers:
    @pytest.mark.parametrize("family", ["opennmt", "eole"])
    def test_words_in_the_checkpoint(self, tmp_path, family):
        """A source has nothing around it, a target its end."""
        (tmp_path / "spm.model").write_bytes(model())
        words = ["<unk>", "<blank>", "<s>", "</s>", *pieces(model())[3:]]
        ids = {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3, "decoder_start_id": 2}
        settings = {"vocab": {"src": words, "tgt": words}}
        rows = config(len(words), **ids)
        source, target = read_vocabularies(tmp_path, family, settings, rows)
        assert [words[index] for index in source.encode(TEXT)] == list(spelled(TEXT))
        assert (source.frame, target.frame) == (((), ()), ((), (3,)))
        assert target.decode([*target.encode(TEXT), 3]) == TEXT
        with pytest.raises(UserError, check=saying("vocabulary", "list")):
            read_vocabularies(tmp_path, family, {}, rows)

    def test_marians_own_numbers(self, tmp_path):
        """vocab.spm: </s> is 0, <unk> 1; the padding is a row that the import adds."""
        own = model(eos_id=0, unk_id=1, bos_id=-1, pad_id=-1)
        (tmp_path / "vocab.spm").write_bytes(own)
        count = len(pieces(own))
        ids = {"pad_id": count, "unk_id": 1, "eos_id": 0, "decoder_start_id": count}
        source, target = read_vocabularies(tmp_path, "marian-npz", {}, config(count + 1, **ids))
        assert [pieces(own)[index] for index in source.encode(TEXT)] == list(spelled(TEXT, own))
        assert target.frame == ((), (0,))
        assert source.size == count + 1
        assert target.decode([*target.encode(TEXT), 0, count]) == TEXT

    def test_marian_of_opus(self, tmp_path):
        """Two models, one vocabulary in YAML, as OPUS-MT's archives hold them."""
        for side in ("source", "target"):
            (tmp_path / f"{side}.spm").write_bytes(model())
        names = ["</s>", "<unk>", *pieces(model())[3:]]
        lines = [f"{json.dumps(name)}: {index}\n" for index, name in enumerate(names)]
        (tmp_path / "opus.spm32k-spm32k.vocab.yml").write_text("".join(lines))
        count = len(names)
        ids = {"pad_id": count, "unk_id": 1, "eos_id": 0, "decoder_start_id": count}
        source, _ = read_vocabularies(tmp_path, "marian-npz", {}, config(count + 1, **ids))
        assert [names[index] for index in source.encode(TEXT)] == list(spelled(TEXT))


def spelled(text, data=None):
    """The pieces of a text by the model itself."""
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_proto=data or model()).encode(text, out_type=str)
