"""Small configs and inputs that together reach every field of the config, every pair of values.

Sizes are different primes (the width is the product of two), so that a swapped axis cannot fit.
"""

import itertools
from typing import Any

import numpy as np

from transformer_spec import TransformerConfig

FIELDS: dict[str, tuple[Any, ...]] = {
    "activation": ("relu", "gelu", "gelu_tanh", "gelu_sigmoid", "silu", "identity"),
    "encoder_positions": (
        "sinusoidal",
        "learned",
        "learned_after_norm",
        "relative",
        "none",
        "frozen",
    ),
    "decoder_positions": ("sinusoidal", "learned", "learned_after_norm", "relative", "none"),
    "output_bias": ("trained", "none", "frozen"),
    "tied_embeddings": ("none", "target_output", "source_target", "all"),
    "norm_position": ("post", "pre"),
    "final_norm": (False, True),
    "embedding_norm": (False, True),
    "norm_epsilon": (1e-5, 1e-6),
    "sinusoid_layout": ("interleaved", "concatenated"),
    "sinusoid_frequency": ("2i/d", "i/(d/2-1)"),
    "position_offset": (0, 2),
    "positions_skip_padding": (False, True),
    "embedding_scale": (None, 1.0),
    "attention_scale": (None, 1.0),
    "attention_bias": (True, False),
    "ffn_bias": (True, False),
    "decoder_start_id": (None, 0),
    "dropout": (0.1, 0.0),
    "attention_dropout": (0.0, 0.2),
    "activation_dropout": (0.0, 0.3),
    "num_encoder_layers": (2, 1),
    "num_decoder_layers": (2, 3),
    "num_heads": (3, 5),
    "head_dim": (None, 4),
    "norm": ("layer", "rms", "std"),
    "gated_ffn": (False, True),
    "relative_buckets": (8, 6),
    "relative_max_distance": (6, 9),
    "relative_per_layer": (False, True),
    "output_scale": (1.0, 0.25),
    "final_dropout": (0.0, 0.2),
    "attention_output_bias": (None, True, False),
    "dropout_after_norm": (False, True),
    "key_bias": (None, True, False),
    "feature_dim": (0, 7),
    "max_source_length": (None, 13),
}

SIZES = {
    "source_vocab_size": 23,
    "target_vocab_size": 19,
    "hidden_dim": 15,
    "inner_dim": 11,
    "max_length": 17,
}


def config_of(values: dict[str, Any]) -> TransformerConfig:
    """A prime-sized config; a table shared by both sides gets one vocabulary size."""
    sizes = dict(SIZES)
    if values.get("tied_embeddings") in ("all", "source_target"):
        sizes["source_vocab_size"] = sizes["target_vocab_size"]
    if values.get("feature_dim"):
        sizes["source_vocab_size"] = 0
    plain = {"num_heads": 3, "num_encoder_layers": 2, "num_decoder_layers": 2}
    return TransformerConfig(**{**sizes, **plain, **values})


def can_be(row: dict[str, Any]) -> bool:
    """Whether such values can be: with pre no norm ends a sub-layer, features have no table."""
    if row.get("feature_dim") and row.get("tied_embeddings") in ("all", "source_target"):
        return False
    return not (row.get("dropout_after_norm") and row.get("norm_position") == "pre")


def pairwise_configs() -> list[TransformerConfig]:
    """Few configs in which every pair of values of two fields that can be together is."""
    missing = {
        frozenset((first, second))
        for a, b in itertools.combinations(FIELDS, 2)
        for first in ((a, value) for value in FIELDS[a])
        for second in ((b, value) for value in FIELDS[b])
        if can_be(dict((first, second)))
    }
    configs = []
    while missing:
        row = _covering_row(missing)
        missing -= {frozenset(pair) for pair in itertools.combinations(row.items(), 2)}
        configs.append(config_of(row))
    return configs


def _covering_row(missing: set[frozenset]) -> dict[str, Any]:
    """One value for every field, chosen greedily to cover many missing pairs, at least one."""
    row = dict(min(missing, key=lambda pair: sorted(map(str, pair))))
    for field in FIELDS:
        if field not in row:
            row[field] = max(
                (value for value in FIELDS[field] if can_be(row | {field: value})),
                key=lambda value: sum(
                    frozenset(((field, value), other)) in missing for other in row.items()
                ),
            )
    return row


def inputs(config: TransformerConfig, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (B, S) and (B, T) with S != T: rows padded right, left, in full and not at all.

    Where the source is features (B, W, M), they are normal numbers in as many frames as fit.

    Row 0 has the longest length, row 1 right padding, row 2 left padding, row 3 one token, row 4
    a source of padding only; both ends of the vocabulary occur.
    """
    generator = np.random.default_rng(seed)
    S, T = config.max_source_length, config.max_length - 4
    M = config.feature_dim
    source = generator.integers(4, max(5, config.source_vocab_size), (5, S))
    target = generator.integers(4, config.target_vocab_size, (5, T))
    source[0, 0], source[0, 1] = config.source_vocab_size - 1, config.unk_id
    target[0, 0], target[0, 1] = config.decoder_start_id, config.target_vocab_size - 1
    source[1, 7:] = target[1, 5:] = config.pad_id
    source[2, :6] = target[2, :3] = config.pad_id
    source[3, 1:] = target[3, 1:] = config.pad_id
    source[4, :] = config.pad_id
    features = generator.normal(size=(5, 2 * S, M)) if M else source.astype(np.int32)
    return features, target.astype(np.int32)
