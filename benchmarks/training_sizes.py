"""The models and batches of benchmarks/train.py, the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.translation_model import t5_config
from training_recipe.batching.batches import Batch, BatchPlan
from training_recipe.corpora.downloads import corpus_folder
from training_recipe.corpora.text_files import read_parallel
from transformer_spec import TransformerConfig
from transformer_spec.errors import Faults

VOCABULARY = 10_000
FIRST_WORD = 4  # after padding, unknown, begin and end
# Where the data may lie beside the folder that ``train.py --data multi30k-en-de`` downloads it to.
MULTI30K = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k"
MULTI30K_PREFIX = "train.lc.norm.tok"
# Mean and deviation of the logarithm of a sentence's words, German over English, where the data is
# missing.
LOG_WORDS, LOG_DEVIATION, GERMAN_OVER_ENGLISH = 2.5, 0.3, 0.96


@dataclass(frozen=True)
class Size:
    """Layers of each half, D, F, H, rows x length of full batches (None: as Multi30k has them).

    Its form is that of Vaswani et al. 2017, or that of T5 with T5's vocabulary.
    """

    layers: int
    hidden_dim: int
    inner_dim: int
    num_heads: int
    full: tuple[int, int] | None
    batches: int
    form: str = "usual"

    def config(self, dropout: float) -> TransformerConfig:
        if self.form == "t5":
            return t5_config(
                hidden_dim=self.hidden_dim, inner_dim=self.inner_dim, num_heads=self.num_heads,
                num_encoder_layers=self.layers, num_decoder_layers=self.layers, dropout=dropout,
            )  # fmt: skip
        return TransformerConfig(
            VOCABULARY, VOCABULARY, self.hidden_dim, self.inner_dim, self.num_heads,
            self.layers, self.layers, 128, tied_embeddings="all", dropout=dropout,
        )  # fmt: skip

    def make_batches(self) -> list[Batch]:
        """What one turn trains on."""
        if self.full is not None:
            return [full_batch(*self.full, seed) for seed in range(self.batches)]
        plan = BatchPlan(multi30k_pairs(), 4096)
        return [plan.batch(step) for step in range(1, self.batches + 1)]


SIZES = {
    "D 256": Size(2, 256, 1024, 4, (64, 60), 2),
    "Multi30k": Size(4, 128, 256, 4, None, 6),
    "D 512": Size(2, 512, 2048, 8, (64, 60), 1),
    "T5-small": Size(6, 512, 2048, 8, (16, 60), 1, "t5"),
}


def full_batch(rows: int, length: int, seed: int) -> Batch:
    """Random words without padding."""
    draw = np.random.default_rng(seed)
    source = draw.integers(FIRST_WORD, VOCABULARY, (rows, length), np.int32)
    target = draw.integers(FIRST_WORD, VOCABULARY, (rows, length + 1), np.int32)
    return Batch(source, target[:, :-1].copy(), target[:, 1:].copy())


def multi30k_pairs() -> list[tuple[list[int], list[int]]]:
    """Random words, as many a sentence as Multi30k's English and German have."""
    draw = np.random.default_rng(0)
    lengths = multi30k_lengths()
    words = draw.integers(FIRST_WORD, VOCABULARY, int(lengths.sum())).tolist()
    ends = np.cumsum(lengths.ravel()).reshape(lengths.shape)
    starts = ends - lengths
    rows = zip(starts.tolist(), ends.tolist(), strict=True)
    return [(words[s[0] : e[0]], words[s[1] : e[1]]) for s, e in rows]


def multi30k_lengths() -> np.ndarray:
    """Words of each pair (N, 2), of the data where it is there, else drawn alike."""
    for folder in multi30k_folders():
        pairs = read_parallel(str(folder / MULTI30K_PREFIX), ("en", "de"), Faults())
        return np.array([[len(text.split()) for text in pair] for pair in pairs])
    draw = np.random.default_rng(0)
    english = draw.lognormal(LOG_WORDS, LOG_DEVIATION, 29_000)
    german = english * GERMAN_OVER_ENGLISH * draw.lognormal(0, 0.15, 29_000)
    return np.clip(np.stack([english, german], 1).round(), 3, 50).astype(np.int64)


def multi30k_folders() -> list[Path]:
    """The folders that hold the training part."""
    places = corpus_folder("multi30k-en-de"), MULTI30K
    return [place for place in places if any(place.glob(f"{MULTI30K_PREFIX}.de*"))]


def lengths_from(size: str) -> str:
    """Where the lengths of a size's sentences come from, in words."""
    if SIZES[size].full is not None:
        return "all of one length"
    return "as in the data" if multi30k_folders() else "drawn, the data is not there"


def arithmetic(config: TransformerConfig, batch: Batch) -> float:
    """Floating-point operations of the matrix products of one training step, analytically.

    A product of (n, i) and (i, o) takes 2 n i o; backward takes twice as much as forward. With B
    rows, S source and T target columns, padding included, forward is

        encoder layer   2 B S (4 D^2 + 2 D F) + 4 B S^2 D
        decoder layer   2 B T (6 D^2 + 2 D F) + 4 B S D^2 + 4 B T^2 D + 4 B T S D
        vocabulary      2 B T D V

    Element-wise work (softmax, LayerNorm, dropout, the optimizer) is not counted.
    """
    D, F, V = config.hidden_dim, config.inner_dim, config.target_vocab_size
    (B, S), T = batch.source.shape, batch.target_in.shape[1]
    encoder = 2 * B * S * (4 * D**2 + 2 * D * F) + 4 * B * S**2 * D
    decoder = 2 * B * T * (6 * D**2 + 2 * D * F) + 4 * B * S * D**2
    decoder += 4 * B * T**2 * D + 4 * B * T * S * D
    layers = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder
    return 3.0 * (layers + 2 * B * T * D * V)
