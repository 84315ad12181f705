"""FSMT, fairseq's WMT19 models as Hugging Face transformers stores them.

Two vocabularies, post-norm, fairseq's sinusoids, no bias on the output. The class of transformers 4
always used the decoder's table as the output projection too; that of 5 has an output of its own
unless ``tie_word_embeddings`` makes one table of all three.
"""

from __future__ import annotations

from typing import Any

from convert.core.rules import Rule, rename
from convert.families.base import Settings, Source
from convert.families.huggingface.keys import DEFAULTS
from convert.families.huggingface.names import (
    OUR_OUTPUT,
    OUR_SOURCE,
    OUR_TARGET,
    PREFIX,
    SOURCE_TABLE,
    TARGET_TABLE,
    one_table,
)
from convert.families.huggingface.sinusoids import StoredSinusoids
from transformer_spec import Faults, TransformerConfig

OUTPUT = "decoder.output_projection.weight"
FIRST_UNTIED = 5  # the version of transformers whose class has an output of its own
V4_TIES = (
    "decoder.output_projection is decoder.embed_tokens, as in transformers 4, which wrote these "
    "settings; transformers 5 trains the two apart"
)


class FSMT(StoredSinusoids):
    name = "fsmt"
    model_type = "fsmt"
    architecture = "FSMTForConditionalGeneration"
    fields = {
        "norm_position": "post",
        "final_norm": False,
        "embedding_norm": False,
        "encoder_positions": "sinusoidal",
        "decoder_positions": "sinusoidal",
        "sinusoid_layout": "concatenated",
        "sinusoid_frequency": "i/(d/2-1)",
        "positions_skip_padding": True,
    }
    defaults = DEFAULTS | {
        "activation_function": "relu",
        "scale_embedding": True,
        "tie_word_embeddings": False,
        "decoder_start_token_id": 2,
    }
    older = {
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": True,
    }
    silent = ("langs", "decoder", "extra_pos_embeddings")
    ties = ("all", "target_output", "none")
    output_bias = False
    length_first = True

    def position_offset(self, pad_id: int) -> int:
        return pad_id + 1

    def stored_positions(self, config: TransformerConfig) -> int:
        return config.max_length + config.position_offset

    vocabulary_keys = {
        "source_vocab_size": "src_vocab_size",
        "target_vocab_size": "tgt_vocab_size",
    }

    def vocabularies(self, settings: Settings) -> dict[str, Any]:
        source, target = settings.need("src_vocab_size"), settings.need("tgt_vocab_size")
        settings.only("vocab_size", None, target)
        return {
            "source_vocab_size": source,
            "target_vocab_size": target,
            "tied_embeddings": _ties(settings),
        }

    def check_vocabularies(self, config: TransformerConfig, faults: Faults) -> None:
        """Two vocabularies of different sizes are the rule."""

    def check(self, config: TransformerConfig, faults: Faults) -> None:
        """The padding token has no position of its own."""
        pad, start = config.pad_id, config.decoder_start_id
        faults.require(
            pad != start, f"decoder_start_id is pad_id {pad}; {self.name} counts no padding token"
        )

    def expressed(self, config: TransformerConfig) -> dict[str, Any]:
        sizes = {
            "src_vocab_size": config.source_vocab_size,
            "tgt_vocab_size": config.target_vocab_size,
            "tie_word_embeddings": config.tied_embeddings == "all",
        }
        found = super().expressed(config) | sizes
        del found["vocab_size"]
        return found

    def _heading(self, config: TransformerConfig) -> dict[str, Any]:
        """An output of its own is said by the version: there is no setting for it."""
        untied = config.tied_embeddings == "none"
        version = {"transformers_version": f"{FIRST_UNTIED}.0.0"} if untied else {}
        return super()._heading(config) | version

    def table_rules(self, config: TransformerConfig, prefix: str, source: Source) -> list[Rule]:
        first, second, output = (prefix + name for name in (SOURCE_TABLE, TARGET_TABLE, OUTPUT))
        if config.tied_embeddings == "all":
            return [one_table([second, first, output], OUR_SOURCE, source.tensors)]
        rules = [rename(first, OUR_SOURCE)]
        if config.tied_embeddings == "target_output":
            return [*rules, one_table([second, output], OUR_TARGET, source.tensors)]
        return [*rules, rename(second, OUR_TARGET), rename(output, OUR_OUTPUT)]

    def saved_tables(self, config: TransformerConfig) -> list[str]:
        """An output that is tied is saved all the same: transformers 5 has two weights there."""
        names = (SOURCE_TABLE, TARGET_TABLE, OUTPUT)
        kept = names[1:2] if config.tied_embeddings == "all" else names
        return [PREFIX + name for name in kept]


def _ties(settings: Settings) -> str:
    if settings.only("tie_word_embeddings", True, False, default=False) is True:
        return "all"
    version = str(settings.get("transformers_version") or "4").partition(".")[0]
    if version.isdecimal() and int(version) >= FIRST_UNTIED:
        return "none"
    settings.notes.append(V4_TIES)
    return "target_output"
