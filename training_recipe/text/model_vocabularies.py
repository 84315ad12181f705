"""The two vocabularies of a model, and what they have to do with its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training_recipe.sound.sound_files import SoundFiles
from training_recipe.text.languages import offered
from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.vocabulary import CharacterVocabulary, Vocabulary, load_vocabulary
from transformer_spec import Faults, TransformerConfig, UserError

Pair = tuple[Vocabulary, Vocabulary]
SHOWN = 3
SIDES = ("source", "target")


def load_vocabularies(folder: Path, config: TransformerConfig) -> Pair:
    """The vocabularies of a model; missing ones and ones of another model are a UserError."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; without vocabularies a model reads no text")
    if not any((folder / f"{side}.json").exists() for side in SIDES):
        raise UserError(
            f"{folder} has no source.json and no target.json: the model came without a tokenizer "
            "that could be read. Convert again from a folder that has it; --dry-run says what is "
            "wrong with it"
        )
    pair = load_vocabulary(folder, "source"), load_vocabulary(folder, "target")
    check_fit(pair, config, str(folder))
    return pair


def check_fit(pair: Pair, config: TransformerConfig, label: str) -> None:
    """Raise one UserError that names everything in which vocabularies are another model's."""
    faults = Faults()
    sizes = {"source": config.source_vocab_size, "target": config.target_vocab_size}
    for vocabulary, (side, size) in zip(pair, sizes.items(), strict=True):
        if isinstance(vocabulary, SoundFiles):
            _check_sound(vocabulary, config, faults)
            continue
        if isinstance(vocabulary, PublishedVocabulary):
            _check_room(vocabulary, side, size, faults)
            _check_frame(vocabulary, side, size, faults)
        else:
            message = f"the {side} vocabulary has {vocabulary.size} tokens, the model {size}"
            faults.require(vocabulary.size == size, message)
        published = isinstance(vocabulary, PublishedVocabulary)
        for name in ("pad_id", "eos_id") if published else ("pad_id", "unk_id", "eos_id"):
            ours, models = getattr(vocabulary, name), getattr(config, name)
            message = f"{name} is {ours} in the {side} vocabulary and {models} in the model"
            faults.require(ours == models, message)
    faults.raise_if_any(f"{label} does not fit the model's config.json")


def _check_sound(sounds: SoundFiles, config: TransformerConfig, faults: Faults) -> None:
    """Features are those that the model hears."""
    given = {"feature_dim": sounds.feature_dim, "max_source_length": sounds.positions}
    for name, ours in given.items():
        model = getattr(config, name)
        faults.require(ours == model, f"{name} is {ours} of the sources and {model} in the model")


def _check_room(vocabulary: PublishedVocabulary, side: str, rows: int, faults: Faults) -> None:
    """A published vocabulary may leave rows of a table free, and may not need more."""
    beyond = range(rows, vocabulary.size)
    if beyond:
        some = ", ".join(f"{vocabulary.token(index)!r} ({index})" for index in beyond[:SHOWN])
        more = ", ..." if len(beyond) > SHOWN else ""
        faults.add(
            f"the {side} vocabulary has {vocabulary.size:,} tokens and the model's table "
            f"{rows:,} rows: {len(beyond):,} tokens have none ({some}{more}); was the tokenizer "
            "extended? Enlarge the model's table to it, or take the tokenizer that the model had"
        )


def _check_frame(vocabulary: PublishedVocabulary, side: str, rows: int, faults: Faults) -> None:
    """What stands around a text has a row of the table too."""
    around = vocabulary.conventions.before + vocabulary.conventions.after
    for index in (part for part in around if isinstance(part, int) and part >= rows):
        message = f"the {side} vocabulary puts {index:,} around a text, and the table has no such"
        faults.add(f"{message} row: it has {rows:,}")


def spare_rows(pair: Pair, config: TransformerConfig) -> list[str]:
    """Notes on tables with rows that no token has: a few of them are common, many are not."""
    sizes = {"source": config.source_vocab_size, "target": config.target_vocab_size}
    free = {
        side: rows - vocabulary.size
        for vocabulary, (side, rows) in zip(pair, sizes.items(), strict=True)
        if rows > vocabulary.size
    }
    return [
        f"{count:,} of the {sizes[side]:,} rows of the {side} table have no token"
        for side, count in free.items()
    ]


def spoken(pair: Pair, languages: str | None) -> Pair:
    """The vocabularies in the languages that were given, or in those that they came in.

    One UserError names each side that needs a language and has none.
    """
    pair, faults = in_languages(pair, languages) if languages is not None else pair, Faults()
    for vocabulary, side in zip(pair, SIDES, strict=True):
        try:
            _ = vocabulary.frame
        except UserError as error:
            faults.add(f"{side}: {error}")
    faults.raise_if_any("a language is to be chosen")
    return pair


def in_languages(pair: Pair, given: str) -> Pair:
    """The vocabularies in the languages of "SOURCE,TARGET"; codes they lack are a UserError.

    A source that begins with the language of the output (``>>deu<<``), or is sound, needs "TARGET"
    alone: what language it is in itself, the model sees.
    """
    source, target = pair
    codes = [code.strip() for code in given.split(",")]
    told, heard = source.begins_with_target, isinstance(source, SoundFiles)
    if not (told and not heard) and not source.languages and not target.languages:
        raise UserError(
            f"languages {given!r} were given, and the model has none to choose; leave them out"
        )
    if heard and len(codes) > 1:
        raise UserError(f"languages {given!r}: a model that hears is told one, what is spoken: fr")
    if "" in codes or len(codes) not in ((1, 2) if told else (2,)):
        form = "TARGET or SOURCE,TARGET" if told else "SOURCE,TARGET"
        raise UserError(
            f"languages are given as {form}, not {given!r}; {offered(source.languages)}"
        )
    faults, chosen = Faults(), list[Vocabulary]()
    for vocabulary, side in zip(pair, SIDES, strict=True):
        side = "target" if told else side
        code = codes[0] if side == "source" else codes[-1]
        try:
            chosen.append(vocabulary.speaking(code) if vocabulary.languages else vocabulary)
        except UserError as error:
            faults.add(f"{side}: {error}")
    faults.raise_if_any("the languages that were given")
    return chosen[0], chosen[1]


def small_letters(texts: Sequence[str], vocabulary: Vocabulary) -> dict[int, str]:
    """Capitals of the texts to read as small letters: unknown ones whose small form is known."""
    if vocabulary.kind != CharacterVocabulary.kind:
        return {}

    def known(letter: str) -> bool:
        return len(letter) == 1 and vocabulary.count_unknown(letter) == 0

    letters = set().union(*texts)
    return {ord(a): a.lower() for a in sorted(letters) if not known(a) and known(a.lower())}
