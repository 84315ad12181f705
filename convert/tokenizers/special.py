"""Special tokens of a folder: their ids, the languages among them, and what was added."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convert.tokenizers.folder import Folder
from training_recipe.text.added_rules import PYTHON, TOKENIZERS, AddedRules
from training_recipe.text.conventions import Conventions
from training_recipe.text.languages import language_of
from training_recipe.text.sentencepiece_table import SPACE
from transformer_spec import Faults, UserError

ROLES = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
# Stands for a gap in a text: no control of the model, but what people write and read.
SENTINEL = re.compile(rf"{SPACE}?<extra_id_\d+>")
# Classes that the library has in Python alone.
IN_PYTHON = ("MarianTokenizer", "M2M100Tokenizer", "PLBartTokenizer", "ByT5Tokenizer")
GENERATION, FORCED = "generation_config.json", "forced_bos_token_id"


@dataclass(frozen=True)
class Tokens:
    """What is no piece of text: names -> ids. ``languages`` are by their codes."""

    roles: Mapping[str, int]
    special: Mapping[str, int]
    added: Mapping[str, int]
    languages: Mapping[str, int] = field(default_factory=dict)

    def conventions(self, folder: Folder, language: str | None, **more: Any) -> Conventions:
        """How a text is used, ``more`` being the fields that are the family's."""
        ids = {f"{role}_id": self.roles[f"{role}_token"] for role in ("pad", "unk", "eos")}
        ids["bos_id"] = self.roles.get("bos_token", folder.config.bos_id)
        clean_up = folder.about.get("clean_up_tokenization_spaces") is True
        rules = self._rules(folder)
        fields = {"clean_up": clean_up, "languages": self.languages, "language": language}
        fields |= {"rules": rules} if rules.tokens else {}
        return Conventions(**ids, special=self.special, added=self.added, **{**fields, **more})

    def _rules(self, folder: Folder) -> AddedRules:
        """Those of tokens that a text is cut at, in the words of the class's own program."""
        program = PYTHON if folder.tokenizer_class in IN_PYTHON else TOKENIZERS
        return AddedRules(program, {n: x for n, x in folder.rules.items() if n in self.added})


def tokens_of(
    folder: Folder,
    table: Mapping[str, int],
    *,
    beyond: Mapping[str, int] | None = None,
    roles: Mapping[str, str] = ROLES,
    language: str = "(?!)",
) -> Tokens:
    """The special and the added tokens of a folder whose pieces have the ids of ``table``.

    ``beyond`` are the family's own tokens behind the table, where no file gives them other ids;
    ``language`` is what tokens of languages look like, their code being its group.
    """
    names = {role: folder.name_of(role, name) for role, name in roles.items()}
    special, added = dict(beyond or {}), dict[str, int]()
    for name, (index, is_special) in folder.numbered.items():
        place = special if is_special or name in special or name in names.values() else added
        place[name] = index
    special |= {name: table[name] for name in names.values() if name in table}
    _number_the_rest(folder.listed, table, special, added)
    sentinels = {name: special.pop(name) for name in [*special] if SENTINEL.fullmatch(name)}
    # One with a space before it is a piece, which no text is cut at.
    added |= {name: index for name, index in sentinels.items() if not name.startswith(SPACE)}
    faults = Faults()
    for role in ("pad_token", "unk_token", "eos_token"):
        needed = f"{role} {names[role]!r} has no id in the tokenizer's files"
        faults.require(names[role] in special, needed)
    _check(special, added, table, faults)
    faults.raise_if_any("its special tokens")
    codes = {name: found for name in special if (found := re.fullmatch(language, name))}
    by_id = sorted(codes, key=lambda name: special[name])
    return Tokens(
        {role: special[name] for role, name in names.items() if name in special},
        special,
        added,
        {codes[name][1]: special[name] for name in by_id},
    )


def _number_the_rest(
    listed: list[str], table: Mapping[str, int], special: dict[str, int], added: dict[str, int]
) -> None:
    """Ids of tokens that are only listed: their pieces', or the next ones."""
    for name in listed:
        if name in table:
            special.setdefault(name, table[name])
        elif name not in special:
            known = (*table.values(), *special.values(), *added.values())
            special[name] = added.pop(name, max(known, default=-1) + 1)


def _check(
    special: Mapping[str, int], added: Mapping[str, int], table: Mapping[str, int], faults: Faults
) -> None:
    both = {**special, **added}
    for name, index in both.items():
        if table.get(name, index) != index:
            faults.add(f"{name!r} has the id {index} and, in the vocabulary, {table[name]}")
    numbers = Counter(both.values())
    for index in [index for index, count in numbers.items() if count > 1]:
        same = " and ".join(repr(name) for name in both if both[name] == index)
        faults.add(f"{same} have one id, {index}")


def source_language(folder: Folder, tokens: Tokens) -> str | None:
    """The language that a source is in unless another is chosen."""
    return _named(folder, "src_lang", tokens)


def target_language(folder: Folder, tokens: Tokens) -> str | None:
    """The language of outputs: the tokenizer's, or what the model is made to begin with."""
    named = _named(folder, "tgt_lang", tokens)
    if named is not None:
        return named
    forced = [place.get(FORCED) for place in (folder.read_object(GENERATION), folder.settings)]
    begins = {*forced, folder.config.decoder_start_id} - {None}
    return next((code for code, index in tokens.languages.items() if index in begins), None)


def _named(folder: Folder, key: str, tokens: Tokens) -> str | None:
    given = folder.about.get(key)
    if given is None:
        return None
    try:
        return language_of(str(given), tokens.languages)
    except UserError as error:
        raise UserError(f"{key} of its tokenizer_config.json: {error}") from None
