"""Codes of languages: what is near to what a user writes."""

import pytest
from messages import saying

from training_recipe.text.languages import language_of, near, offered
from transformer_spec import UserError

FLORES = ("ces_Latn", "deu_Latn", "eng_Latn", "dan_Latn", "zho_Hans", "zho_Hant", "fra_Latn")
FAIRSEQ = ("cs_CZ", "de_DE", "en_XX", "zh_CN", "fr_XX")


@pytest.mark.parametrize(
    ("given", "languages", "nearest"),
    [
        ("de", FLORES, "deu_Latn"),
        ("deu", FLORES, "deu_Latn"),
        ("deu_latn", FLORES, "deu_Latn"),
        ("cs", FLORES, "ces_Latn"),
        ("zh", FLORES, "zho_Hans"),
        ("de", FAIRSEQ, "de_DE"),
        ("deu_Latn", FAIRSEQ, "de_DE"),
        ("zho_Hans", FAIRSEQ, "zh_CN"),
        ("en-US", FAIRSEQ, "en_XX"),
        ("deu_Latn", ("de", "en", "da"), "de"),
    ],
)
def test_near(given, languages, nearest):
    assert near(given, languages)[0] == nearest


def test_nothing_is_near():
    assert near("", FLORES) == near("qqq_Qqqq", FAIRSEQ) == []
    assert "ces_Latn" in offered(FLORES, "qqqq") and "7" in offered(FLORES)


def test_codes_with_their_marks():
    assert language_of("__de__", ("de", "en")) == "de"
    assert language_of(">>deu<<", ("deu", "fra")) == "deu"
    assert language_of("__x__", ("__x__", "x")) == "__x__"


def test_errors():
    with pytest.raises(UserError, check=saying("'tlh'", "cs_CZ", 5, "--languages")):
        language_of("tlh", FAIRSEQ)
    with pytest.raises(UserError, check=saying("'de'", "no languages")):
        language_of("de", ())
