"""Models of other libraries translate as there: from their own folder, and once converted."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
from folders_of_hub import sentences
from messages import says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

import twinformer  # noqa: E402
from convert.__main__ import main as convert  # noqa: E402
from twinformer.translating.attention import shown  # noqa: E402

# The folders, the languages to give and, beside the texts, what those begin with.
CASES = {
    "marian": (None, ""),
    "marian-multi": (None, ">>fra<< "),
    "marian-separate": (None, ""),
    "marian-flax": (None, ""),
    "bart": (None, ""),
    "mbart": (None, ""),
    "mbart50": ("en_XX,de_DE", ""),
    "m2m100": ("en,de", ""),
    "nllb": ("eng_Latn,deu_Latn", ""),
}
IN_JAX = ("marian", "nllb")  # each takes seconds to compile
SHORT = 24  # most tokens of an output: peaked random weights would go on for hundreds


def texts_of(name: str) -> list[str]:
    begun = CASES[name][1]
    return [begun + text for text in sentences("test_2016_flickr", "en")[:6]]


def said_by_library(folder: Path, languages: str | None, texts: list[str]) -> list[str]:
    """What transformers' pipeline of tokenizer, generate and decode says."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        options = {}
        if languages is not None:
            tokenizer.src_lang, code = languages.split(",")
            given = tokenizer.convert_tokens_to_ids(code)
            known = getattr(tokenizer, "lang_code_to_id", None) or {}
            options["forced_bos_token_id"] = known.get(code, given)
            if hasattr(tokenizer, "get_lang_id"):
                options["forced_bos_token_id"] = tokenizer.get_lang_id(code)
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        found = model.generate(**batch, max_length=SHORT + 1, **options)
        return tokenizer.batch_decode(found, skip_special_tokens=True)


@pytest.fixture(scope="module", params=CASES)
def case(request, hub_folders, tmp_path_factory):
    """A folder, the same converted, its languages, texts, and what the library says to them."""
    folder, (languages, _) = hub_folders(request.param), CASES[request.param]
    converted = tmp_path_factory.mktemp("converted") / "ours"
    assert convert([str(folder), str(converted), "--to", "flax"]) == 0
    texts = texts_of(request.param)
    judge = hub_folders("marian") if request.param == "marian-flax" else folder
    return folder, converted, languages, texts, said_by_library(judge, languages, texts)


def translated(folder: Path, backend: str, languages: str | None, texts: list[str]) -> list[str]:
    translate = twinformer.Translator(folder, backend=backend, languages=languages)
    assert translate.search.rule == "generate"
    return [found.text for found in translate(texts, max_length=SHORT)]


class TestBothPlaces:
    def test_the_foreign_folder_is_read_on_the_fly_and_left_as_it_is(self, case):
        folder, _, languages, texts, wanted = case
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert translated(folder, "torch", languages, texts) == wanted
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    def test_the_converted_folder(self, case):
        folder, converted, languages, texts, wanted = case
        backend = "jax" if folder.name in IN_JAX else "torch"
        assert translated(converted, backend, languages, texts) == wanted


class TestCommand:
    def test_texts_in_texts_out(self, hub_folders, call):
        folder = hub_folders("nllb")
        languages = ("--languages", "eng_Latn,deu_Latn")
        texts = texts_of("nllb")[:2]
        status, out, said = call(folder, *texts, *languages, "--max-length", SHORT)
        assert status == 0, said
        wanted = said_by_library(folder, languages[1], texts)
        assert [line.split() for line in out] == [line.split() for line in wanted]

    def test_flags_win_over_what_the_model_was_published_with(self, hub_folders, call):
        folder, text = hub_folders("marian"), texts_of("marian")[0]
        options = ("--max-length", SHORT, "--scores")
        usual = call(folder, text, *options)[1]
        assert call(folder, text, *options, "--rule", "generate", "--beam", 4)[1] == usual
        greedy = call(folder, text, *options, "--beam", 1)[1]
        exact = call(folder, text, *options, "--beam", 1, "--rule", "exact")[1]
        # At the limit the rule of generate writes an end, as the model was published.
        assert exact[0].split("\t")[1].startswith(greedy[0].split("\t")[1])
        status, _, said = call(folder, text, "--rule", "exact", "--min-length", 3)
        assert status == 2
        says(said, "min_length", "rule generate")

    def test_a_picture_is_of_what_the_search_had(self, hub_folders, call, tmp_path, monkeypatch):
        seen, begin = [], 77
        monkeypatch.setattr(
            "twinformer.translating.attention_plot.draw_map",
            lambda *given: seen.append(given[0]) or set(),
        )
        folder = shutil.copytree(hub_folders("bart"), tmp_path / "in")

        def drawn(**published):
            file = folder / "generation_config.json"
            settings = (
                json.loads(file.read_text())
                | {"forced_bos_token_id": 0, "min_length": 0}
                | published
            )
            file.write_text(json.dumps(settings))
            kind = "--attention", tmp_path / "a.png", "--attention-kind", "decoder"
            text, greedy = sentences("test_2016_flickr", "en")[0], ("--beam", 1)
            assert call(folder, text, *kind, *greedy, "--backend", "torch")[0] == 0
            return seen[-1]

        target = twinformer.Translator(folder, backend="torch").target
        tokens = [shown(target.token(number)) for number in range(target.size)]
        found = drawn(decoder_start_token_id=begin)
        assert found.columns == [tokens[begin], *found.rows[:-1]]
        assert (found.rows[0], found.rows[-1]) == (tokens[0], tokens[2])
        end = found.rows.index(found.rows[4])
        again = drawn(eos_token_id=[2, tokens.index(found.rows[end])])
        assert again.rows == found.rows[: end + 1]
        assert again.columns == found.columns[: end + 1]

    @pytest.mark.parametrize(
        ("name", "given", "parts"),
        [
            ("nllb", (), ("target", "language", "--languages")),
            ("nllb", ("--languages", "eng_Latn,de"), ("no language 'de'", "deu_Latn")),
            ("m2m100", ("--languages", "eng_Latn,de"), ("no language 'eng_Latn'", "en")),
            ("mbart50", ("--languages", "en_XX"), ("SOURCE,TARGET",)),
            ("marian", ("--languages", "en,de"), ("none to choose",)),
            ("marian-multi", (), ("language", "deu, fra, nld")),
            ("marian-multi", ("--languages", "spa"), ("no language 'spa'", "deu, fra, nld")),
        ],
    )
    def test_languages_that_are_missing_or_unknown(self, hub_folders, call, name, given, parts):
        status, _, said = call(hub_folders(name), "a dog", *given)
        assert (status, said.count("error: ")) == (2, 1)
        says(said, *parts)

    def test_the_language_of_the_output_in_the_text_or_as_a_flag(self, hub_folders, call):
        folder, options = hub_folders("marian-multi"), ("--max-length", 6)
        told = call(folder, "a dog runs", "--languages", "nld", *options)[1]
        assert call(folder, ">>nld<< a dog runs", *options)[1] == told
        status, _, said = call(folder, ">>spa<< a dog runs", *options)
        assert status == 2
        says(said, "no language", "spa", "deu, fra, nld")

    def test_special_tokens_in_a_text_are_text_and_said(self, hub_folders, call):
        status, _, said = call(hub_folders("bart"), "a </s> b <mask>", "c", "--max-length", 4)
        assert status == 0
        says(said, "</s>, <mask>", "in 1 line", "are read as text")

    def test_a_tokenizer_that_is_cut_short(self, hub_folders, call, tmp_path):
        folder = hub_folders.copy("marian", tmp_path / "cut")
        os.truncate(folder / "source.spm", 1000)
        status, _, said = call(folder, "a dog")
        assert status == 2
        says(said, "source.spm", "cut short")

    def test_a_vocabulary_that_is_larger_than_the_model(self, hub_folders, call, tmp_path):
        folder = hub_folders.copy("marian", tmp_path / "extended")
        table = json.loads((folder / "vocab.json").read_text())
        table |= {f"new{n}": len(table) + n for n in range(3)}
        (folder / "vocab.json").write_text(json.dumps(table))
        status, _, said = call(folder, "a dog")
        assert status == 2
        says(said, "3 tokens have none", "new0", "extended")

    def test_weights_without_a_tokenizer(self, hub_folders, call, tmp_path, capsys):
        folder = hub_folders.copy("mbart", tmp_path / "bare")
        for name in ("sentencepiece.bpe.model", "tokenizer_config.json", "special_tokens_map.json"):
            (folder / name).unlink()
        status, _, said = call(folder, "a dog")
        assert status == 2
        says(said, "no tokenizer", "reads ids", "tokenizer.json", folder)
        assert convert([str(folder), str(tmp_path / "ours"), "--to", "torch"]) == 0
        says(capsys.readouterr().out, "reads ids", "tokenizer.json", folder)


def test_an_empty_text_has_no_language(hub_folders) -> None:
    folder = hub_folders("marian-multi")
    spoken = twinformer.Translator(folder, languages="en,deu", backend="torch")
    assert [one.text for one in spoken(["", " "], max_length=4)] == ["", ""]
    assert twinformer.Translator(folder, backend="torch").encode(["", ">>fra<< a"]).ids[0] == []
