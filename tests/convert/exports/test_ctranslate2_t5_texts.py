"""The code that an export prints cuts and joins texts of T5 as our vocabularies do.

What translates is a stand-in here: it keeps the tokens that it is given, and writes them back.
"""

import contextlib
import io
import sys
import types

import pytest
from published_cases import TEXTS, config
from t5_folders import GAPS, IDS, OF_MADLAD, USUAL, of_madlad, pieces_of_t5, read, write

from convert.exports.ctranslate2_tokens import tokens_of
from convert.exports.ctranslate2_usage import usage
from training_recipe.text.model_vocabularies import in_languages

MADLAD = USUAL | {"extra_ids": 0, "pad_token": "<s>"}
TOKENIZERS = {
    "t5": (lambda: pieces_of_t5(size=360, byte_fallback=True), USUAL, 512, IDS, None),
    "byt5": (lambda: None, {"tokenizer_class": "ByT5Tokenizer"}, 384, IDS, None),
    "madlad": (of_madlad, MADLAD, 384, OF_MADLAD, None),
    "madlad, chosen": (of_madlad, MADLAD, 384, OF_MADLAD, "fr"),
}


class Translator:
    """What the code knows of CTranslate2's."""

    given: list[list[str]] = []

    def __init__(self, folder: str) -> None: ...

    def translate_batch(self, tokens, **options):
        Translator.given = tokens
        return [types.SimpleNamespace(hypotheses=[each]) for each in tokens]


# The code leaves the closing of its files to the end of the process.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", TOKENIZERS)
def test_cut_and_joined(name, tmp_path, monkeypatch):
    made, about, rows, ids, language = TOKENIZERS[name]
    pair = read(write(tmp_path, made(), about), rows, **ids)
    pair = in_languages(pair, language) if language else pair
    begun = "<2de> " if name == "madlad" else ""
    texts = [begun + text for text in (*TEXTS, *([] if "madlad" in name else GAPS), "k\u00e4t")]
    (vocabulary := tmp_path / "vocabulary").mkdir()
    for side, each in zip(("source", "target"), pair, strict=True):
        each.save(vocabulary, side)
    sizes = config(rows, **{**IDS, **ids})
    tokens = tokens_of(sizes, pair)
    code = usage(sizes, tokens, tmp_path, None).partition("\n")[2]
    module = types.SimpleNamespace(Translator=Translator)
    monkeypatch.setitem(sys.modules, "ctranslate2", module)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {"texts": texts})
    source, target = pair
    wanted = [source.frame.around(source.encode(text.strip())) for text in texts]
    assert Translator.given == [[tokens.source[index] for index in row] for row in wanted]
    said = [target.decode(row).strip() for row in wanted]
    assert [line.strip() for line in out.getvalue().splitlines()] == said
