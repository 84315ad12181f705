"""Ids and decoded texts are those of transformers' own tokenizers, folder by folder."""

import json
import warnings

import pytest
from folders_of_hub import FAMILIES, sentences
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.tokenizer_agreement import compared, opened
from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.vocabulary import load_vocabulary

CODES = ("en", "de")
EACH = 120  # sentences of a side; benchmarks/tokenizer_agreement.py compares all of them
ODD = (
    "", "#", "a # b ## c", "tab\there", "new\nline", " leading", "two  spaces", "a\u00a0b",
    "zero\u200bwidth" , "\U0001f600 \U0001f469\u200d\U0001f467", "\u202ertl \u05e2\u05d1",
    "caf\u00e9", "\u2581a b", "<a> & b_c", "Stra\u00dfe 3,5 %", "it 's n't . , !",
)  # fmt: skip
# In mBART's version 5 nothing is normalised: tests/convert/tokenizers/test_tokenizer_differences.py
NOT_NORMALISED = {"zero\u200bwidth"}
LETTERS = "ab \t\u00e9\u0301\u200b\u202e\u05d0\U0001f600.,#'\u2581"


@pytest.fixture(scope="module")
def pairs(hub_folders):
    """Our vocabularies and the library's tokenizer of a folder, kept for the module."""
    kept = {}

    def pair(name):
        if name not in kept:
            kept[name] = opened(hub_folders(name), CODES)
        return kept[name]

    return pair


@pytest.mark.parametrize("name", FAMILIES)
def test_sentences(pairs, name):
    pair, tokenizer = pairs(name)
    for is_target, vocabulary in enumerate(pair):
        told = vocabulary.begins_with_target
        texts = sentences("test_2016_flickr", CODES[is_target])[:EACH]
        texts += [text for text in ODD if text not in NOT_NORMALISED or "mbart" not in name]
        texts = [f">>deu<< {text}" if told else text for text in texts]
        found = compared(vocabulary, tokenizer, texts, bool(is_target))
        assert (found.lines, found.ids) == (len(texts), [])
        # The library has lost what is special in a folder that it saved itself, and reads any ids
        # by the target's table.
        if name != "m2m100-v5" and (name != "marian-separate" or is_target):
            assert found.texts == []


@pytest.mark.parametrize("name", ["marian", "m2m100", "bart"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(LETTERS, max_size=12))
@example(text="   ")
def test_odd_texts(pairs, name, text):
    (source, _), tokenizer = pairs(name)
    ids = source.frame.around(source.encode(text))
    assert ids == tokenizer(text)["input_ids"]
    assert source.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["marian-separate", "bart", "mbart", "nllb"])
def test_written_and_read_again(pairs, hub_folders, tmp_path, name):
    """source.json, target.json and the tokenizer's own files, byte for byte."""
    pair, _ = pairs(name)
    text = sentences("val", "en")[0]
    for vocabulary, side in zip(pair, ("source", "target"), strict=True):
        vocabulary.save(tmp_path, side)
    for vocabulary, side in zip(pair, ("source", "target"), strict=True):
        again = load_vocabulary(tmp_path, side)
        assert isinstance(again, PublishedVocabulary)
        assert (again.language, again.frame) == (vocabulary.language, vocabulary.frame)
        assert again.encode(text) == vocabulary.encode(text)
        assert (again.pad_id, again.start_id) == (vocabulary.pad_id, vocabulary.start_id)
    for path in tmp_path.iterdir():
        if path.suffix != ".json" or path.stem not in ("source", "target"):
            assert path.read_bytes() == (hub_folders(name) / path.name).read_bytes()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("bart", ["vocab.json", "merges.txt"]),
        ("bart", ["tokenizer.json"]),
        ("mbart-v5", ["tokenizer.json"]),
        ("mbart50-v5", ["tokenizer.json"]),
        ("nllb", ["tokenizer.json"]),
        ("nllb-v5", ["tokenizer.json"]),
    ],
)
def test_folders_of_which_one_form_is_left(hub_folders, tmp_path, name, kept):
    """What people's folders lack: the sentencepiece model, or all but it, or tokenizer.json."""
    folder = hub_folders.copy(name, tmp_path / name)
    for file in ("vocab.json", "merges.txt", "tokenizer.json", "sentencepiece.bpe.model"):
        if file not in kept:
            (folder / file).unlink(missing_ok=True)
    pair, tokenizer = opened(folder, CODES)
    for is_target, vocabulary in enumerate(pair):
        texts = [*sentences("val", CODES[is_target])[:60], *ODD, "trailing ", "\ufb01ne"]
        found = compared(vocabulary, tokenizer, texts, bool(is_target))
        assert (found.ids, found.texts) == ([], [])
        control = set(vocabulary.conventions.special.values()) - {vocabulary.unk_id}
        for text in ("a </s>", "<s>a<mask>", "de_DE deu_Latn", "\ufdd0</s> <pad>"):
            assert not control & set(vocabulary.encode(text))


@pytest.mark.parametrize("name", ["marian", "mbart", "m2m100"])
def test_spaces_before_punctuation_go_where_the_settings_say_so(hub_folders, tmp_path, name):
    """Versions 4 wrote clean_up_tokenization_spaces into most folders."""
    folder = hub_folders.copy(name, tmp_path / name)
    path = folder / "tokenizer_config.json"
    about = json.loads(path.read_text()) | {"clean_up_tokenization_spaces": True}
    path.write_text(json.dumps(about))
    pair, tokenizer = opened(folder, CODES)
    texts = ["a man , a dog .", "a dog 's ball , is n't it ?"]
    found = compared(pair[0], tokenizer, texts, False)
    assert (found.ids, found.texts) == ([], [])
    assert pair[0].decode(pair[0].encode(texts[0])) == "a man, a dog."


@pytest.mark.parametrize("name", ["marian", "m2m100", "mbart", "bart"])
def test_added_tokens(hub_folders, tmp_path, name):
    """Words that a user added to a tokenizer, the model's table having been enlarged."""
    from transformers import AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(hub_folders(name))
    folder = hub_folders.copy(name, tmp_path / name)
    tokenizer.add_tokens(["fahrrad", "fahrradweg"])
    tokenizer.save_pretrained(folder)
    pair, tokenizer = opened(_enlarged(folder, len(tokenizer)), CODES)
    texts = ["ein fahrrad .", "der fahrradweg", "fahrradfahrrad", "fahrrad", "ein Haus"]
    found = compared(pair[0], tokenizer, texts, False)
    assert (found.ids, found.texts) == ([], [])
    last = pair[0].size - 1
    assert {last - 1, last} <= set(pair[0].encode(" ".join(texts)))


RULED = {
    "single_word": ["dog", "ing", "covid", "[NAME]", "\u00dft", "two men"],
    "lstrip": ["<l>", "cov"],
    "rstrip": ["<r>", " lead"],
}
AROUND = (
    "{0}", "a {0} b", "a{0}b", "{0} {0}", "{0}{0}", "x {0}, y", "{0}s", "s{0}", "_{0}_", "({0})",
    "a  {0}  b", "{0}\u0301", "\u00e9{0}", "1{0}2", "\t{0}\n", "{0}[NAME]", "<l>{0}", " {0}<r> ",
)  # fmt: skip


@pytest.mark.parametrize("name", ["marian", "m2m100", "mbart", "nllb", "bart"])
def test_rules_of_added_tokens(hub_folders, tmp_path, name):
    """Words that stand alone, and tokens that take the spaces beside them along."""
    from transformers import AddedToken, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(hub_folders(name))
    folder = hub_folders.copy(name, tmp_path / name)
    for rule, words in RULED.items():
        given = [AddedToken(word, normalized=False, **{rule: True}) for word in words]
        tokenizer.add_tokens(given)
    tokenizer.save_pretrained(folder)
    pair, tokenizer = opened(_enlarged(folder, len(tokenizer)), CODES)
    pair[0].save(tmp_path, "source")
    words = [word for some in RULED.values() for word in some]
    texts = [place.format(word) for word in words for place in AROUND]
    texts += [*ODD, *sentences("val", "en")[:EACH]]
    if name == "mbart":
        texts = [text for text in texts if text not in NOT_NORMALISED]
    for vocabulary in (pair[0], load_vocabulary(tmp_path, "source")):
        found = compared(vocabulary, tokenizer, texts, False)
        assert (found.ids, found.texts) == ([], [])


def _enlarged(folder, rows):
    """The folder with a table of so many rows, as resize_token_embeddings makes it."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    arrays = load_file(folder / "model.safetensors")
    path = folder / "config.json"
    before = json.loads(path.read_text())["vocab_size"]
    more = max(rows - before, 0)
    for name, array in arrays.items():
        for axis, length in enumerate(array.shape):
            if length == before:
                wide = [(0, more if place == axis else 0) for place in range(array.ndim)]
                arrays[name] = np.pad(array, wide)
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    content = json.loads(path.read_text()) | {"vocab_size": before + more}
    if "decoder_vocab_size" in content:
        content["decoder_vocab_size"] = before + more
    path.write_text(json.dumps(content))
    return folder
