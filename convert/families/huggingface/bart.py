"""BART and mBART as Hugging Face transformers stores them.

Both have learned positions that start at row 2 and a LayerNorm on the embeddings; mBART is
pre-norm with a final LayerNorm on each half.
"""

from __future__ import annotations

from convert.families.huggingface.names import HuggingFace

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


class Bart(HuggingFace):
    name = "bart"
    model_type = "bart"
    architecture = "BartForConditionalGeneration"
    fields = LEARNED | {"norm_position": "post", "final_norm": False}
    older = OLDER | {"normalize_before": False, "add_final_layer_norm": False}

    def position_offset(self, pad_id: int) -> int:
        """Two rows come before the first position, whatever the padding id is."""
        return 2


class MBart(Bart):
    """A model for many languages: the decoder starts from the target language's id."""

    name = "mbart"
    model_type = "mbart"
    architecture = "MBartForConditionalGeneration"
    fields = LEARNED | {"norm_position": "pre", "final_norm": True}
    older = OLDER | {"normalize_before": True, "add_final_layer_norm": True}
    start_is_optional = True
