"""Rules of added tokens are those of the two programs that published tokenizers are read by."""

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from training_recipe.text.added_rules import PYTHON, RULES, TOKENIZERS, AddedRules
from training_recipe.text.conventions import Conventions, split_at

NAMES = ("dog", "do", "[x]", " a", "two men")
ASKED = st.dictionaries(st.sampled_from(NAMES), st.frozensets(st.sampled_from(RULES), min_size=1))
PARTS = (
    *NAMES,
    " ",
    "  ",
    "\t",
    "b",
    "_",
    "1",
    "\u0301",
    "\u00e9",
    ",",
    "\u200d",
    "\u00b2",
    "\u2160",
)
TEXTS = st.lists(st.sampled_from(PARTS), max_size=7).map("".join)
EXAMPLES = settings(max_examples=300, deadline=None, database=None)


def rows(rules):
    asked = {name: rules.get(name, frozenset()) for name in NAMES}
    return [(name, {rule: rule in some for rule in RULES}) for name, some in asked.items()]


@EXAMPLES
@given(rules=ASKED, text=TEXTS)
@example(rules={"dog": frozenset(["single_word"])}, text="dog dogs hotdog dog\u0301 dog,_dog")
def test_as_tokenizers_cuts(rules, text):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"?": 0}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    given = [tokenizers.AddedToken(n, normalized=False, **flags) for n, flags in rows(rules)]
    tokenizer.add_tokens(given)
    encoded = tokenizer.encode(text)
    found = [
        (tokenizer.id_to_token(index) if index else text[start:end], index > 0)
        for index, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
    ]
    assert AddedRules(TOKENIZERS, rules).cut(text, split_at(dict.fromkeys(NAMES, 0))) == found


@EXAMPLES
@given(rules=ASKED, text=TEXTS)
@example(rules={"dog": frozenset(["single_word"])}, text="a dog, hotdog dogs dog")
def test_as_transformers_cuts(rules, text):
    """What is no token stands in angles, so that all parts can be seen."""
    transformers = pytest.importorskip("transformers")

    class Characters(transformers.PythonBackend):
        vocab_size = 0

        def get_vocab(self):
            return dict(self.added_tokens_encoder)

        def _tokenize(self, text, **_):
            return [f"<{text}>"]

        def _convert_token_to_id(self, token):
            return 0

    given = [transformers.AddedToken(n, normalized=False, **flags) for n, flags in rows(rules)]
    tokenizer = Characters()
    tokenizer.add_tokens(given)
    ours = AddedRules(PYTHON, rules).cut(text, split_at(dict.fromkeys(NAMES, 0)))
    assert [part if token else f"<{part}>" for part, token in ours] == tokenizer.tokenize(text)


def test_what_a_description_says_of_them():
    rules = AddedRules(PYTHON, {"dog": frozenset(["single_word", "lstrip"])})
    some: dict[str, Any] = {"special": {"<pad>": 0}, "added": {"dog": 9}}
    told = Conventions(0, 1, 2, 3, **some, rules=rules).content(None)
    assert told["added_rules"] == {"of": PYTHON, "tokens": {"dog": ["lstrip", "single_word"]}}
    assert Conventions.parse(told).rules == rules
    assert "added_rules" not in Conventions(0, 1, 2, 3, **some).content(None)


@pytest.mark.parametrize(
    "damage", ["x", {}, {"of": "me", "tokens": {}}, {"of": PYTHON, "tokens": {"dog": ["loud"]}}]
)
def test_a_damaged_description_is_named(damage):
    with pytest.raises(ValueError, check=lambda error: re.search("rules", str(error)) is not None):
        AddedRules.parse(damage)
