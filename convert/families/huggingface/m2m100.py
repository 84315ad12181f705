"""M2M100 and NLLB as Hugging Face transformers stores them (``M2M100ForConditionalGeneration``).

Positions count non-padding tokens from pad_id + 1; the sinusoids are tensor2tensor's. The sparse
NLLB models (``nllb-moe``) are another class.
"""

from __future__ import annotations

from convert.families.huggingface.keys import DEFAULTS
from convert.families.huggingface.names import HuggingFace
from transformer_spec import Faults, TransformerConfig

SPARE_ROWS = 2  # of the library's position table, beyond max_position_embeddings


class M2M100(HuggingFace):
    name = "m2m100"
    model_type = "m2m_100"
    architecture = "M2M100ForConditionalGeneration"
    fields = {
        "norm_position": "pre",
        "final_norm": True,
        "embedding_norm": False,
        "encoder_positions": "sinusoidal",
        "decoder_positions": "sinusoidal",
        "sinusoid_layout": "concatenated",
        "sinusoid_frequency": "i/(d/2-1)",
        "positions_skip_padding": True,
    }
    defaults = DEFAULTS | {
        "activation_function": "relu",
        "attention_dropout": 0.1,
        "scale_embedding": True,
    }
    older = {
        "normalize_before": True,
        "normalize_embedding": False,
        "add_final_layer_norm": True,
        "static_position_embeddings": True,
    }
    output_bias = False
    forces_eos = False

    def position_offset(self, pad_id: int) -> int:
        return pad_id + 1

    def check(self, config: TransformerConfig, faults: Faults) -> None:
        """The padding token has no position of its own, and its row must be in the table."""
        pad, start, rows = config.pad_id, config.decoder_start_id, config.max_length + SPARE_ROWS
        faults.require(
            pad != start, f"decoder_start_id is pad_id {pad}; {self.name} counts no padding token"
        )
        faults.require(pad < rows, f"pad_id {pad} is outside the {rows} rows of the position table")
