"""Blenderbot and Blenderbot-small as Hugging Face transformers stores them.

Both have learned positions from row 0.
"""

from __future__ import annotations

from typing import Any

from convert.families.base import Settings
from convert.families.huggingface.keys import DEFAULTS
from convert.families.huggingface.names import HuggingFace

LEARNED = {
    "encoder_positions": "learned",
    "decoder_positions": "learned",
    "positions_skip_padding": False,
}
OLDER = {
    "static_position_embeddings": False,
    "extra_pos_embeddings": 0,
    "extra_layer_norm": False,
}
# Of configs before transformers 4.1; where norms stand is the class's matter since.
SCALED = (
    "scale_embedding is True: embeddings are scaled in both halves, as in ParlAI and transformers "
    "4.30; the decoder of 4.57 and 5 leaves the factor out, and its logits differ a little"
)
SILENT = ("do_blenderbot_90_layernorm", "layernorm_variant")


class Blenderbot(HuggingFace):
    """Pre-norm with final norms, no norm on embeddings."""

    name = "blenderbot"
    model_type = "blenderbot"
    architecture = "BlenderbotForConditionalGeneration"
    fields = LEARNED | {"norm_position": "pre", "final_norm": True, "embedding_norm": False}
    defaults = DEFAULTS | {"bos_token_id": 1, "decoder_start_token_id": 1}
    older = OLDER | {
        "normalize_before": True,
        "normalize_embedding": False,
        "add_final_layer_norm": True,
    }
    silent = SILENT


class BlenderbotSmall(Blenderbot):
    """Another model than Blenderbot: post-norm, with a norm on embeddings.

    Its encoder norms the sum of embeddings and positions, its decoder the embeddings alone. Both
    scale embeddings in ParlAI, where the model is from, and in transformers 4.30; the decoder of
    4.57 and of 5 has the factor and does not use it, which a norm hides but for epsilon.
    """

    name = "blenderbot-small"
    model_type = "blenderbot-small"
    architecture = "BlenderbotSmallForConditionalGeneration"
    fields = LEARNED | {
        "norm_position": "post",
        "final_norm": False,
        "embedding_norm": True,
        "decoder_positions": "learned_after_norm",
    }
    older = OLDER | {
        "normalize_before": False,
        "normalize_embedding": True,
        "add_final_layer_norm": False,
    }

    def _embedding_scale(self, settings: Settings, D: Any) -> float:
        scale = super()._embedding_scale(settings, D)
        if scale != 1.0:
            settings.notes.append(SCALED)
        return scale
