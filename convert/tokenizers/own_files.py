"""fairseq, OpenNMT-py, eole and Marian's own files, where a sentencepiece model lies beside them.

Without one their texts were cut before these programs saw them, and how is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convert.tokenizers.folder import Folder
from convert.tokenizers.pairs import Pair, check_pieces
from training_recipe.text.conventions import Conventions
from training_recipe.text.number_tables import read_table
from training_recipe.text.sentencepiece_table import SentencePieceTable, sentencepiece_processor
from transformer_spec import UserError

FAIRSEQ_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
LANGUAGE_TOKENS = ("lang_tok_replacing_bos_eos", "encoder_langtok", "decoder_langtok", "langs")
SOURCE, TARGET = ("src", "source"), ("tgt", "target", "trg")
PAD = "<pad>"
SPECIAL = ("<unk>", "<blank>", "<s>", "</s>", PAD)


def read_fairseq(folder: Folder) -> Pair:
    """dict.txt of both sides, or dict.LANGUAGE.txt of each, numbers the pieces of the model."""
    told = [name for name in LANGUAGE_TOKENS if folder.settings.get(name)]
    if told:
        raise UserError(
            f"the model was trained with tokens of languages ({', '.join(told)}), whose places in "
            "its texts are not read"
        )
    languages = [folder.settings.get(f"{side}_lang") for side in ("source", "target")]
    tables = _dictionaries(folder, languages)
    models = _models(folder, languages)
    files = folder.read_all(sorted({*models, *tables}))
    source, target = (
        _numbered(folder, files, *side, {"format": "lines"}, FAIRSEQ_FIRST)
        for side in zip(models, tables, strict=True)
    )
    return source, target


def _dictionaries(folder: Folder, languages: Sequence[object]) -> list[str]:
    if folder.has("dict.txt"):
        return ["dict.txt", "dict.txt"]
    return [f"dict.{language}.txt" for language in languages]


def read_opennmt(folder: Folder) -> Pair:
    """The checkpoint holds the words by their ids; a source has nothing around it."""
    vocab = folder.settings.get("vocab")
    sides = [vocab.get(side) for side in ("src", "tgt")] if isinstance(vocab, Mapping) else []
    sides = [words for words in sides if isinstance(words, list)]
    if len(sides) != 2:
        raise UserError("the checkpoint's vocabulary is no list of words for each side")
    models = _models(folder, ())
    files = folder.read_all(sorted(set(models)))
    source, target = (
        _listed(folder, files, model, words, ends=bool(number))
        for number, (model, words) in enumerate(zip(models, sides, strict=True))
    )
    return source, target


def read_marian_npz(folder: Folder) -> Pair:
    """Marian numbers pieces as its .spm does, or, cut beforehand, by a vocabulary in YAML."""
    tables = sorted(
        p.name for p in folder.path.iterdir() if p.name.endswith(("vocab.yml", ".yaml"))
    )
    models = _models(folder, ())
    if not tables:
        files = folder.read_all(sorted(set(models)))
        source, target = (_own_numbers(folder, files, model) for model in models)
        return source, target
    pair = tables * 2 if len(tables) == 1 else list(_sides(tables, ()))
    files = folder.read_all(sorted({*models, *tables}))
    source, target = (
        _numbered(folder, files, *side, {"format": "yaml"}, ())
        for side in zip(models, pair, strict=True)
    )
    return source, target


def _models(folder: Folder, languages: Sequence[object]) -> tuple[str, str]:
    """The sentencepiece models of source and target: one, or two told apart by their names."""
    names = sorted(p.name for p in folder.path.iterdir() if p.suffix in (".model", ".spm"))
    if not names:
        raise UserError(
            "no sentencepiece model (.model or .spm) lies there, so that how its texts were cut is "
            "not known"
        )
    return (names[0], names[0]) if len(names) == 1 else _sides(names, languages)


def _sides(names: Sequence[str], languages: Sequence[object]) -> tuple[str, str]:
    """Which of several files is the source's and which the target's."""
    marks = [
        {*side, *([str(languages[n])] if len(languages) > n else [])}
        for n, side in enumerate((SOURCE, TARGET))
    ]
    found = [[name for name in names if mark & _parts(name)] for mark in marks]
    if [len(some) for some in found] != [1, 1]:
        raise UserError(
            f"which of {', '.join(names)} is the source's is not known; leave one, or begin their "
            "names with source and target"
        )
    return found[0][0], found[1][0]


def _parts(name: str) -> set[str]:
    return set(name.lower().replace("-", ".").replace("_", ".").split("."))


def _numbered(
    folder: Folder,
    files: Mapping[str, bytes],
    model: str,
    table: str,
    form: Mapping[str, str],
    first: Sequence[str],
) -> SentencePieceTable:
    """Pieces with ids from a file."""
    how: dict[str, Any] = {"model": model, "table": {"file": table, **form}, "first": list(first)}
    numbers = read_table(how["table"], how["first"], files, ())
    special = {name: numbers[name] for name in SPECIAL if name in numbers}
    vocabulary = _made(folder, special, {n: files[n] for n in (model, table)}, how)
    check_pieces(vocabulary, model, table)
    return vocabulary


def _listed(
    folder: Folder, files: Mapping[str, bytes], model: str, words: list[str], *, ends: bool
) -> SentencePieceTable:
    """Pieces in the order of their ids."""
    special = {name: words.index(name) for name in SPECIAL if name in words}
    how = {"model": model, "table": {"pieces": words}}
    vocabulary = _made(folder, special, {model: files[model]}, how, ends=ends)
    check_pieces(vocabulary, model, "the checkpoint's vocabulary")
    return vocabulary


def _own_numbers(folder: Folder, files: Mapping[str, bytes], model: str) -> SentencePieceTable:
    """Pieces with the ids that the model gives them."""
    processor = sentencepiece_processor(files, model)
    numbers = range(processor.get_piece_size())
    special = {
        processor.id_to_piece(n): n
        for n in numbers
        if processor.is_control(n) or processor.is_unknown(n)
    }
    how = {"model": model, "table": {"from": 0}}
    return _made(folder, special, {model: files[model]}, how)


def _made(
    folder: Folder,
    special: Mapping[str, int],
    files: Mapping[str, bytes],
    how: Mapping[str, Any],
    *,
    ends: bool = True,
) -> SentencePieceTable:
    """The vocabulary with the special ids of the model's config."""
    config = folder.config
    by_id = {index: name for name, index in special.items()}
    by_id.setdefault(config.pad_id, PAD)  # the row that an import adds where there is no padding
    conventions = Conventions(
        config.pad_id, config.unk_id, config.bos_id, config.eos_id,
        special={name: index for index, name in by_id.items()},
        after=(config.eos_id,) if ends else (),
    )  # fmt: skip
    return SentencePieceTable(conventions, files, how)
