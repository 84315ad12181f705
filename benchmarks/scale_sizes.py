"""The models and batches of benchmarks/scale.py."""

from __future__ import annotations

import numpy as np

from training_recipe.batching.batches import Batch
from transformer_spec import TransformerConfig

FIRST = 4  # after padding, unknown, begin and end
# Layers of each half, D, F, H, vocabulary, rows x length of a batch.
SIZES = {
    "tiny": (1, 8, 16, 2, 20, (8, 5)),
    "D 128": (2, 128, 256, 4, 50, (64, 12)),
    "D 256": (2, 256, 1024, 4, 10_000, (64, 60)),
}


def config_of(size: str) -> TransformerConfig:
    """The model of a size, its tables tied, with dropout."""
    layers, D, F, H, V, _ = SIZES[size]
    return TransformerConfig(
        V, V, D, F, H, layers, layers, 128, tied_embeddings="all", dropout=0.1
    )  # fmt: skip


def batches_of(size: str, config: TransformerConfig) -> list[Batch]:
    """Two batches without padding."""
    rows, length = SIZES[size][-1]
    made = []
    for seed in range(2):
        draw = np.random.default_rng(seed)
        source, target = (
            draw.integers(FIRST, config.target_vocab_size, (rows, length + more), np.int32)
            for more in (0, 1)
        )
        made.append(Batch(source, target[:, :-1].copy(), target[:, 1:].copy()))
    return made
