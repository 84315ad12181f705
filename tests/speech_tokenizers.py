"""Tokenizers of Whisper's three vocabularies with the first words of GPT-2's alone.

Bytes have GPT-2's numbers, and so have the pieces that its first seven merges make.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPACE, THE = 220, 262
MERGES = [("Ġ", "t"), ("Ġ", "a"), ("h", "e"), ("i", "n"), ("r", "e"), ("o", "n"), ("Ġt", "he")]


def byte_pieces() -> dict[str, int]:
    """GPT-2's character of every byte: those that print stand for themselves, and come first."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(others))]
    return {letter: index for index, letter in enumerate(letters)}


def text_pieces() -> dict[str, int]:
    pieces = byte_pieces()
    return pieces | {left + right: len(pieces) + n for n, (left, right) in enumerate(MERGES)}


def fillers(vocab_size: int) -> dict[str, int]:
    """Pieces that nothing is cut into: numbers have no gaps, as the library wants them."""
    first = len(text_pieces())
    found = {f"unused{index}": index for index in range(first, 50256)}
    return found | ({"": 50256} if vocab_size > 51864 else {})


def special(vocab_size: int, old: bool = False) -> dict[str, int]:
    """Names that are no text, as published; ``old`` as in files before 2024, without timestamps."""
    several = vocab_size > 51864
    end = 50256 + several
    codes = LANGUAGES[: 99 + (vocab_size == 51866)]
    names = ["endoftext", "startoftranscript", *codes, "translate", "transcribe", "startoflm"]
    names += ["startofprev", "nocaptions" if old else "nospeech", "notimestamps"]
    if not old:
        names += [f"{number * 0.02:.2f}" for number in range(1501)]
    return {f"<|{name}|>": end + number for number, name in enumerate(names)}


def write_json(folder: Path, vocab_size: int, *, old: bool = False, first: int = 0) -> Path:
    """tokenizer.json; without the merges before ``first``."""
    added = [
        {"id": index, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for name, index in special(vocab_size, old).items()
    ]  # fmt: skip
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    content: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None}
    content |= {"added_tokens": added, "normalizer": None, "pre_tokenizer": plain}
    content |= {"post_processor": None, "decoder": plain, "model": {"type": "BPE"}}
    content["model"] |= {"vocab": text_pieces() | fillers(vocab_size)}
    content["model"] |= {"merges": [" ".join(pair) for pair in MERGES[first:]]}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, ensure_ascii=False, indent=2)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    return folder


def write_slow(folder: Path, vocab_size: int, first: int = 0) -> Path:
    """vocab.json, merges.txt and added_tokens.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(text_pieces() | fillers(vocab_size)))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES[first:]), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps(special(vocab_size)))
    return folder


LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th "
    "ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr "
    "pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt "
    "haw ln ha ba jw su yue"
).split()
