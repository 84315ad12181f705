"""Folders of T5 and its relatives: tokenizers whose pieces are trained in small, random models."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from published_cases import TEXTS, config, write_json

from convert.tokenizers import read_vocabularies

MODEL = "spiece.model"
IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": 0, "decoder_start_id": 0}
OF_MADLAD = {**IDS, "pad_id": 1, "eos_id": 2, "unk_id": 0, "bos_id": 1}
OF_CODE = {**IDS, "eos_id": 2, "unk_id": 3, "bos_id": 1}
USUAL = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100}
INSIDE = ",".join(f"\u2581<extra_id_{n}>" for n in reversed(range(100)))
GAPS = (
    "the cat <extra_id_0> mat", "the cat<extra_id_0>mat", "<extra_id_0> the", "a <extra_id_1> .",
    "<extra_id_1><extra_id_0>  sat ", " <extra_id_99>", "a <extra_id_0> <extra_id_1>",
)  # fmt: skip
ODD = (
    "", "a # b", "two  spaces", "tab\tand\nline", "caf\u00e9", " leading", "it 's , so .",
    "a\u00a0b", "\u2581a b", "\ufb01ne", "zero\u200bwidth", "\U0001f600", "<a> & b",
)  # fmt: skip


@cache
def pieces_of_t5(texts: tuple[str, ...] = TEXTS, size: int = 60, **options: Any) -> bytes:
    """A sentencepiece model with T5's special ids: no beginning, the padding first."""
    from sentencepiece import SentencePieceTrainer

    written = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
        sentence_iterator=iter(texts), model_writer=written, vocab_size=size,
        hard_vocab_limit=False, num_threads=1, minloglevel=2, **{**ids, **options},
    )  # fmt: skip
    return written.getvalue()


def of_madlad() -> bytes:
    """Unknown first, the beginning is the padding, languages are pieces."""
    ids = {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2}
    return pieces_of_t5(size=360, user_defined_symbols="<2de>,<2fr>", byte_fallback=True, **ids)


def write(folder: Path, data: bytes | None, about: object = None, family: str = "t5") -> Path:
    """A folder with a model of pieces and the settings of a tokenizer, where these are given."""
    if data is not None:
        (folder / MODEL).write_bytes(data)
    if about is not None:
        write_json(folder / "tokenizer_config.json", about)
    write_json(folder / "config.json", {"model_type": family})
    return folder


def write_code(folder: Path) -> int:
    """CodeT5's: byte-level BPE, padding first, sentinels in added_tokens.json; the ids."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(TEXTS, 300, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    first = len(json.loads((folder / "vocab.json").read_text()))
    names = [f"<extra_id_{n}>" for n in reversed(range(100))]
    write_json(folder / "added_tokens.json", {name: first + n for n, name in enumerate(names)})
    roles = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    about = {f"{role}_token": name for role, name in roles.items()}
    about |= {"cls_token": "<s>", "sep_token": "</s>", "additional_special_tokens": names}
    write(folder, None, {"tokenizer_class": "RobertaTokenizer", **about})
    return first + len(names)


def read(folder: Path, rows: int, family: str = "t5", **ids: Any):
    """Our vocabularies of a folder beside a model with so many rows."""
    content = json.loads((folder / "config.json").read_text())
    return read_vocabularies(folder, family, content, config(rows, **{**IDS, **ids}))


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", {}),
    "t5-v1.1": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "deep": ("T5", {"num_layers": 3, "num_decoder_layers": 1, "feed_forward_proj": "gated-silu"}),
    "mt5": ("MT5", {}),
    "umt5": ("UMT5", {}),
}


def write_model(folder: Path, kind: str, rows: int, gain: float = 0.4, **fields: Any) -> Path:
    """Random weights of a kind beside a tokenizer, saved by the library; no two sizes alike."""
    import torch
    import transformers

    name, more = KINDS[kind]
    small = {
        "vocab_size": rows, "d_model": 13, "d_kv": 5, "d_ff": 17, "num_heads": 3, "num_layers": 2,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
        "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**{**small, **more, **fields})
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight, tensor in model.named_parameters():
            tensor.normal_(float("norm" in weight), gain, generator=generator)
    model.save_pretrained(folder)
    return folder


@contextlib.contextmanager
def norms_in_float64() -> Iterator[None]:
    """The library computes T5's norms in float32 whatever the model's format; here it does not."""
    import torch

    with mock.patch.object(torch, "float32", torch.float64):
        yield
