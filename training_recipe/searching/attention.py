"""What a model looked at: the weights of its attention, and where in the twins they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transformer_spec import TransformerConfig

# Where in the twins the attention of a kind is; {} is the number of its layer.
PLACES = {
    "cross": "decoder.dec_layers.{}.multiheadattention2",
    "encoder": "encoder.enc_layers.{}.multiheadattention",
    "decoder": "decoder.dec_layers.{}.multiheadattention1",
}


class AttentionWeights(NamedTuple):
    """Weights (L, B, H, Q, K) of L layers and H heads: the share of key K in query Q's result.

    ``cross``: target tokens (Q = T) look at source tokens (K = S); ``encoder``: source tokens at
    source tokens; ``decoder``: target tokens at themselves and at earlier ones. A kind of which the
    model has no layer has an array without elements.
    """

    cross: np.ndarray
    encoder: np.ndarray
    decoder: np.ndarray


def layer_count(kind: str, config: TransformerConfig) -> int:
    """How many layers have attention of a kind."""
    return config.num_encoder_layers if kind == "encoder" else config.num_decoder_layers
