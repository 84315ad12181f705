"""Pegasus as Hugging Face transformers stores it: Marian's sinusoids, pre-norm with final norms."""

from __future__ import annotations

from typing import Any

from convert.families.base import Settings
from convert.families.huggingface.keys import DEFAULTS
from convert.families.huggingface.sinusoids import StoredSinusoids

UNKNOWN = 105  # <unk> of the published vocabularies: the third piece after 103 reserved ids
SMALL = 3  # in a vocabulary that ends before


class Pegasus(StoredSinusoids):
    name = "pegasus"
    model_type = "pegasus"
    architecture = "PegasusForConditionalGeneration"
    fields = {
        "norm_position": "pre",
        "final_norm": True,
        "embedding_norm": False,
        "encoder_positions": "sinusoidal",
        "decoder_positions": "sinusoidal",
        "sinusoid_layout": "concatenated",
        "sinusoid_frequency": "2i/d",
        "positions_skip_padding": False,
    }
    defaults = DEFAULTS | {"bos_token_id": None, "decoder_start_token_id": 0}
    older = {
        "normalize_before": True,
        "normalize_embedding": False,
        "add_final_layer_norm": True,
        "static_position_embeddings": True,
    }
    unk_id = UNKNOWN
    silent = ("extra_pos_embeddings",)  # a learned table's

    def _unknown_id(self, settings: Settings) -> Any:
        given, size = super()._unknown_id(settings), settings.get("vocab_size")
        return SMALL if isinstance(size, int) and size <= given else given
