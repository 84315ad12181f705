"""The names that tokenizers' files have."""

from __future__ import annotations

import re
from pathlib import Path

NAMES = (
    "source.spm", "target.spm", "vocab.json", "target_vocab.json", "source_vocab.json",
    "vocab-src.json", "vocab-tgt.json", "merges.txt", "vocab.txt",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "normalizer.json", "chat_template.jinja", "bpecodes", "bpe.codes", "code",
)  # fmt: skip
PATTERNS = (
    r".*\.(model|spm)",
    r"dict(\.[\w-]+)?\.txt",
    r"(.*\.)?vocab(\.[\w-]+)*\.(yml|yaml)",
    r"(encoder\.json|vocab\.bpe)",
)
MATCH = re.compile("|".join(f"(?:{pattern})" for pattern in PATTERNS))


def tokenizer_files(folder: Path) -> list[str]:
    """Names of a folder's files that belong to a tokenizer."""
    names = (path.name for path in folder.iterdir() if path.is_file())
    return sorted(name for name in names if name in NAMES or MATCH.fullmatch(name))
