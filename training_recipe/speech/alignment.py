"""The heads of a Whisper's cross-attention that follow the sound, which times of words come from.

OpenAI found them by hand for its own models; its program takes them by a model's name, this table
by its shape. The two models named large-v1 and large-v2 have one shape, and other heads.
"""

from __future__ import annotations

from collections.abc import Iterable

from training_recipe.speech.tokens import ENGLISH, LARGEST, MULTILINGUAL
from transformer_spec import TransformerConfig

Heads = list[list[int]]  # pairs of a layer of the decoder and a head in it
# (width, layers of the encoder, of the decoder, tokens) -> layer.head
PUBLISHED = {
    (384, 4, 4, ENGLISH): "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    (384, 4, 4, MULTILINGUAL): "2.2 3.0 3.2 3.3 3.4 3.5",
    (512, 6, 6, ENGLISH): "3.3 4.7 5.1 5.5 5.7",
    (512, 6, 6, MULTILINGUAL): "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    (768, 12, 12, ENGLISH): "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 "
    "10.11 11.2 11.4",
    (768, 12, 12, MULTILINGUAL): "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    (1024, 24, 24, ENGLISH): "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 "
    "18.15 20.0 20.3 20.9 20.14 21.12",
    (1024, 24, 24, MULTILINGUAL): "13.15 15.4 15.15 16.1 20.0 23.4",
    (1280, 32, 32, LARGEST): "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
    (1280, 32, 4, LARGEST): "2.4 2.11 3.3 3.6 3.11 3.14",
}


def alignment_heads(config: TransformerConfig) -> Heads | None:
    """The heads of the one published model that has this shape; None where there is none."""
    layers = config.num_encoder_layers, config.num_decoder_layers
    text = PUBLISHED.get((config.hidden_dim, *layers, config.target_vocab_size))
    return None if text is None else [[int(n) for n in pair.split(".")] for pair in text.split()]


def foreign_heads(heads: Iterable[object], config: TransformerConfig) -> list[object]:
    """Those that a model does not have: of layers or heads beyond its own, or no pairs at all.

    They are left in fine-tuned and distilled models by what those were made of.
    """
    bounds = config.num_decoder_layers, config.num_heads
    return [pair for pair in heads if not _is_there(pair, bounds)]


def _is_there(pair: object, bounds: tuple[int, int]) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != len(bounds):
        return False
    return all(type(n) is int and 0 <= n < bound for n, bound in zip(pair, bounds, strict=True))
