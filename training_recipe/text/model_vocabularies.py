"""The two vocabularies of a model, and what they have to do with its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training_recipe.text.vocabulary import CharacterVocabulary, Vocabulary, load_vocabulary
from transformer_spec import Faults, TransformerConfig, UserError


def load_vocabularies(folder: Path, config: TransformerConfig) -> tuple[Vocabulary, Vocabulary]:
    """The vocabularies of a model; missing ones and ones of another model are a UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; without vocabularies a model reads no text")
    pair = load_vocabulary(folder, "source"), load_vocabulary(folder, "target")
    check_fit(pair, config, str(folder))
    return pair


def check_fit(pair: tuple[Vocabulary, Vocabulary], config: TransformerConfig, label: str) -> None:
    """Raise one UserError that names everything in which vocabularies are another model's."""
    faults = Faults()
    sizes = {"source": config.source_vocab_size, "target": config.target_vocab_size}
    for vocabulary, (side, size) in zip(pair, sizes.items(), strict=True):
        message = f"the {side} vocabulary has {vocabulary.size} tokens, the model {size}"
        faults.require(vocabulary.size == size, message)
        for name in ("pad_id", "unk_id", "eos_id"):
            ours, models = getattr(vocabulary, name), getattr(config, name)
            message = f"{name} is {ours} in the {side} vocabulary and {models} in the model"
            faults.require(ours == models, message)
    faults.raise_if_any(f"{label} does not fit the model's config.json")


def small_letters(texts: Sequence[str], vocabulary: Vocabulary) -> dict[int, str]:
    """Capitals of the texts to read as small letters: unknown ones whose small form is known."""
    if vocabulary.kind != CharacterVocabulary.kind:
        return {}

    def known(letter: str) -> bool:
        return len(letter) == 1 and vocabulary.count_unknown(letter) == 0

    letters = set().union(*texts)
    return {ord(a): a.lower() for a in sorted(letters) if not known(a) and known(a.lower())}
