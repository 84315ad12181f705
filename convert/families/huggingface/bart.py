"""BART, PLBart and mBART as Hugging Face transformers stores them.

All have learned positions that start at row 2 and a LayerNorm on the embeddings; mBART is
pre-norm with a final LayerNorm on each half.
"""

from __future__ import annotations

from dataclasses import replace

from convert.families.huggingface.keys import DEFAULTS
from convert.families.huggingface.names import HuggingFace
from transformer_spec import TransformerConfig

LEARNED = {
    "embedding_norm": True,
    "encoder_positions": "learned",
    "decoder_positions": "learned",
    "positions_skip_padding": False,
}
OLDER = {
    "normalize_embedding": True,
    "static_position_embeddings": False,
    "extra_pos_embeddings": 2,
}


COUNTED = (
    "positions are counted over every token, as the classes of Hugging Face do, and no longer over "
    "those that are no padding (fairseq's way): the same for padding at the end, another function "
    "where padding comes first, as in fairseq's own batches of sources; pad on the right"
)


class Bart(HuggingFace):
    name = "bart"
    model_type = "bart"
    architecture = "BartForConditionalGeneration"
    fields = LEARNED | {"norm_position": "post", "final_norm": False}
    older = OLDER | {"normalize_before": False, "add_final_layer_norm": False}

    def position_offset(self, pad_id: int) -> int:
        """Two rows come before the first position, whatever the padding id is."""
        return 2

    def adapted(self, config: TransformerConfig) -> tuple[TransformerConfig, list[str]]:
        """fairseq's positions are those of the class wherever padding is at the end."""
        if not config.positions_skip_padding:
            return config, []
        return replace(config, positions_skip_padding=False), [COUNTED]


class PLBart(Bart):
    """A BART for programs and text; the decoder starts from the target language's id."""

    name = "plbart"
    model_type = "plbart"
    architecture = "PLBartForConditionalGeneration"
    defaults = DEFAULTS | {"attention_dropout": 0.1, "scale_embedding": True}
    start_is_optional = True


class MBart(Bart):
    """A model for many languages: the decoder starts from the target language's id."""

    name = "mbart"
    model_type = "mbart"
    architecture = "MBartForConditionalGeneration"
    fields = LEARNED | {"norm_position": "pre", "final_norm": True}
    older = OLDER | {"normalize_before": True, "add_final_layer_norm": True}
    start_is_optional = True
