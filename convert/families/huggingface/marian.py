"""Marian as Hugging Face transformers stores it (``MarianMTModel``, the OPUS-MT models).

Decoding starts from the padding token, whose embedding is zero in converted models. The activation
"gelu" of a config is the exact one; in Marian's own files the same word means the sigmoid form.
"""

from __future__ import annotations

from typing import Any

from convert.families.base import Settings
from convert.families.huggingface.keys import DEFAULTS
from convert.families.huggingface.names import HuggingFace
from transformer_spec import Faults, TransformerConfig

SHARE = "share_encoder_decoder_embeddings"


class Marian(HuggingFace):
    name = "marian"
    model_type = "marian"
    architecture = "MarianMTModel"
    fields = {
        "norm_position": "post",
        "final_norm": False,
        "embedding_norm": False,
        "encoder_positions": "sinusoidal",
        "decoder_positions": "sinusoidal",
        "sinusoid_layout": "concatenated",
        "sinusoid_frequency": "2i/d",
        "positions_skip_padding": False,
    }
    defaults = DEFAULTS | {"bos_token_id": None, SHARE: True}
    older = {
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": True,
    }
    ties = ("all", "target_output", "none")
    vocabulary_keys = {
        "source_vocab_size": "vocab_size",
        "target_vocab_size": "decoder_vocab_size",
    }
    unk_id = 1
    shared_is_dead = False

    def vocabularies(self, settings: Settings) -> dict[str, Any]:
        """``decoder_vocab_size`` counts only where the tables are separate."""
        size = settings.need("vocab_size")
        target = settings.get("decoder_vocab_size") or size
        shared, tied = self._is_shared(settings), self.is_tied(settings)
        if shared and target != size:
            settings.faults.add(
                f"decoder_vocab_size {target!r} is not vocab_size {size!r}, though {SHARE} is True"
            )
        settings.ignore(["extra_pos_embeddings"])  # a learned table's, which Marian has not
        ties = ("all" if shared else "target_output") if tied else "none"
        return {"source_vocab_size": size, "target_vocab_size": target, "tied_embeddings": ties}

    def _is_shared(self, settings: Settings) -> bool:
        return settings.only(SHARE, True, False, default=True)

    def expressed(self, config: TransformerConfig) -> dict[str, Any]:
        ours = {
            "decoder_vocab_size": config.target_vocab_size,
            SHARE: config.tied_embeddings == "all",
        }
        return super().expressed(config) | ours

    def check_vocabularies(self, config: TransformerConfig, faults: Faults) -> None:
        """Two vocabularies of different sizes are possible."""
