"""Small tokenizers as several libraries write them, trained in the process."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

from training_recipe.text.conventions import LANGUAGE, Conventions
from training_recipe.text.sentencepiece_table import SentencePieceTable
from transformer_spec import TransformerConfig

TEXTS = (
    "the cat sat on the mat",
    "a dog ran over the wet grass",
    "the old grey cat saw a small bird",
    "birds sing when the morning is clear",
    "no dog can sing and no bird can bark",
    "it 's , so , the old cat .",
)
FIRST = ("<s>", "<pad>", "</s>", "<unk>")


@cache
def model(algorithm: str = "unigram", size: int = 60, **options: Any) -> bytes:
    """A sentencepiece model of the texts: unk 0, bos 1, eos 2, unless told otherwise."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
        sentence_iterator=iter(TEXTS), model_writer=written, vocab_size=size,
        model_type=algorithm, hard_vocab_limit=False, num_threads=1, minloglevel=2, **options,
    )  # fmt: skip
    return written.getvalue()


def pieces(data: bytes) -> list[str]:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=data)  # pyright: ignore[reportCallIssue]
    return [processor.id_to_piece(number) for number in range(processor.get_piece_size())]


def config(rows: int, **fields: Any) -> TransformerConfig:
    """A model with as many rows in its tables and fairseq's special ids."""
    sizes = {"source_vocab_size": rows, "target_vocab_size": rows, "max_length": 64}
    small = {"hidden_dim": 8, "inner_dim": 8, "num_heads": 2}
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    ids = {"pad_id": 1, "unk_id": 3, "bos_id": 0, "eos_id": 2, "decoder_start_id": 2}
    return TransformerConfig(**{**sizes, **small, **layers, **ids, **fields})


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def byte_pairs(folder: Path) -> int:
    """vocab.json and merges.txt of BART's form; the number of ids."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(TEXTS, 300, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    table = json.loads((folder / "vocab.json").read_text())
    write_json(folder / "vocab.json", table | {"<mask>": len(table)})
    return len(table) + 1


def in_order(algorithm: str = "unigram", **changes: Any) -> SentencePieceTable:
    """A vocabulary in fairseq's order with two languages in front of a text, one of them spoken."""
    data = model(algorithm)
    count = len(pieces(data)) + 1
    special = {name: number for number, name in enumerate(FIRST)}
    languages = {"en_XX": count, "de_DE": count + 1}
    fields: dict[str, Any] = {
        "special": {**special, **languages, "<mask>": count + 2}, "languages": languages,
        "language": "en_XX", "before": (LANGUAGE,), "after": (2,),
    }  # fmt: skip
    conventions = Conventions(1, 3, 0, 2, **{**fields, **changes})
    how = {"model": "own.model", "first": list(FIRST), "table": {"from": 3}}
    return SentencePieceTable(conventions, {"own.model": data}, how)
