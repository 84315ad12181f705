"""The token strings of a CTranslate2 model, and the call that translates as translate.py does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training_recipe.searching.search import never_produced
from training_recipe.text.model_vocabularies import load_vocabularies, small_letters
from training_recipe.text.vocabulary import CharacterVocabulary, SentencePieceVocabulary
from training_recipe.text.vocabulary_kinds import SPECIAL_PIECES
from transformer_spec import TransformerConfig

VOCABULARY = "vocabulary"
CHARACTERS, SENTENCEPIECE = CharacterVocabulary.kind, SentencePieceVocabulary.kind
NUMBERS = "numbers"
SPLIT = {
    CHARACTERS: "list(text.strip(){small})",
    "whitespace": "text.split()",
    SENTENCEPIECE: "source.encode(text.strip(), out_type=str)",
    NUMBERS: "[str(number) for number in text]",
}
JOIN = {
    CHARACTERS: '"".join(tokens)',
    "whitespace": '" ".join(tokens)',
    SENTENCEPIECE: "target.decode(tokens)",
    NUMBERS: "[int(token) for token in tokens]",
}
USAGE = """\
to translate {texts} as translate.py {options} does:
{imports}
translator = ctranslate2.Translator({folder!r})
found = translator.translate_batch(
    [{split} for text in texts],
    beam_size={beam}, length_penalty={penalty}, patience={patience},
    min_decoding_length=0, max_decoding_length={longest}, max_input_length=0,
    suppress_sequences={suppressed},
)
for tokens in (result.hypotheses[0] for result in found):
    print({join})"""
ID_TEXTS = "`texts` (lists of source ids, the end included where the model reads one)"
# CTranslate2 stops at beam x patience outputs; ours goes on while a better one is possible.
PATIENCE = 2


@dataclass(frozen=True)
class Tokens:
    """What stands for each id of either side, and how text becomes such tokens.

    A model that comes without vocabularies has the numbers themselves: "0", "1" and so on. Whoever
    makes those also knows whether the model reads an end of the source, so none is added to them.
    ``small`` are the capitals that are read as small letters, the source lacking them.
    """

    source: list[str]
    target: list[str]
    source_kind: str = NUMBERS
    target_kind: str = NUMBERS
    small: dict[int, str] = field(default_factory=dict)

    def settings(self, config: TransformerConfig) -> dict[str, str | bool]:
        """The special tokens by the names of CTranslate2's config.json, and what texts end with."""
        ids = {
            "unk_token": config.unk_id,
            "bos_token": config.bos_id,
            "eos_token": config.eos_id,
            "decoder_start_token": config.decoder_start_id,
        }
        names = {name: self.target[number] for name, number in ids.items()}
        return names | {"add_source_eos": self.source_kind != NUMBERS}

    def suppressed(self, config: TransformerConfig) -> list[list[str]]:
        """What our searches never produce, for ``suppress_sequences``."""
        return [[self.target[number]] for number in np.flatnonzero(never_produced(config))]


def read_tokens(config: TransformerConfig, home: Path | None) -> Tokens:
    """The tokens of a model's vocabularies; ones that do not fit the model are a UserError."""
    folder = home / VOCABULARY if home else None
    if folder is None or not folder.is_dir():
        return Tokens(_numbers(config.source_vocab_size), _numbers(config.target_vocab_size))
    sides = load_vocabularies(folder, config)
    pieces = [[v.token(i) for i in range(len(SPECIAL_PIECES), v.size)] for v in sides]
    special = special_tokens(set().union(*pieces))
    source, target = ([*special, *listed] for listed in pieces)
    letters = (chr(number) for number in range(sys.maxunicode + 1))
    capitals = [letter for letter in letters if letter != letter.lower()]
    small = small_letters(capitals, sides[0])
    return Tokens(source, target, sides[0].kind, sides[1].kind, small)


def _numbers(size: int) -> list[str]:
    return [str(number) for number in range(size)]


def special_tokens(taken: set[str]) -> list[str]:
    """``<pad> <unk> <s> </s>``, with underscores behind them where words of a text have the name.

    CTranslate2 looks ids up by token: each token has to be there once.
    """
    names = [str(piece) for piece in SPECIAL_PIECES]
    while not taken.isdisjoint(names):
        names = [f"{name}_" for name in names]
    return names


def usage(config: TransformerConfig, tokens: Tokens, folder: Path) -> str:
    """Python code that translates with the model in a folder as translate.py does."""
    imports = ["import ctranslate2"]
    kinds = {"source": tokens.source_kind, "target": tokens.target_kind}
    pieces = [side for side, kind in kinds.items() if kind == SENTENCEPIECE]
    if pieces:
        imports.append("from sentencepiece import SentencePieceProcessor")
    for side in pieces:
        model = folder / VOCABULARY / f"{side}.model"
        imports.append(f"{side} = SentencePieceProcessor(model_file={str(model)!r})")
    if tokens.small:
        capitals, letters = "".join(map(chr, tokens.small)), "".join(tokens.small.values())
        imports.append(f"small = str.maketrans({capitals!r}, {letters!r})")
    beam, penalty, longest = 5, 1.0, config.max_length
    return USAGE.format(
        texts=ID_TEXTS if tokens.source_kind == NUMBERS else "`texts`",
        imports="\n".join(imports),
        folder=str(folder),
        split=SPLIT[tokens.source_kind].format(small=".translate(small)" if tokens.small else ""),
        join=JOIN[tokens.target_kind],
        longest=longest,
        suppressed=_listed(tokens.suppressed(config)),
        options=f"--beam {beam} --length-penalty {penalty} --max-length {longest}",
        beam=beam,
        penalty=penalty,
        patience=PATIENCE,
    )


def _listed(sequences: Sequence[list[str]]) -> str:
    return "[" + ", ".join(map(repr, sequences)) + "]"
