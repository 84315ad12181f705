"""Whisper as Hugging Face transformers stores it (``WhisperForConditionalGeneration``).

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2. The
table of encoder positions is stored and never trained; no published one holds the formula's
numbers.
"""

from __future__ import annotations

from typing import Any

from convert.core.rules import Rule, rename
from convert.families.base import Settings, Source
from convert.families.huggingface.keys import DEFAULTS
from convert.families.huggingface.names import (
    CONVOLUTIONS,
    LIKE,
    OUR_OUTPUT,
    OUR_TARGET,
    PREFIX,
    TARGET_TABLE,
    HuggingFace,
    one_table,
)
from convert.families.huggingface.settings import one_id
from convert.families.usual_parts import check_common_parts
from convert.families.whisper.ids import known_tokens, padding
from training_recipe.speech.tokens import ENGLISH, SpeechTokens
from transformer_spec import Faults, TransformerConfig, UserError

OUTPUT_TABLE = "proj_out.weight"
FIELDS: dict[str, Any] = {
    "norm_position": "pre",
    "final_norm": True,
    "embedding_norm": False,
    "encoder_positions": "frozen",
    "decoder_positions": "learned",
    "sinusoid_layout": "concatenated",
    "sinusoid_frequency": "i/(d/2-1)",
    "positions_skip_padding": False,
    "embedding_scale": 1.0,
    "key_bias": False,
}
# The first numbers of the stored table alone.
FIRST_VALUES = ("sinusoid_layout", "sinusoid_frequency")
# What masks parts of the features while a model learns (Park et al. 2019, SpecAugment).
MASKS = tuple(
    f"mask_{axis}_{what}"
    for axis in ("time", "feature")
    for what in ("prob", "length", "min_masks")
)
SILENT = (*MASKS, "classifier_proj_size", "median_filter_width", "alignment_heads")
SPOKEN = ("forced_decoder_ids", "is_multilingual", "lang_to_id", "task_to_id")  # of generation
OTHER_HEADS = {
    "WhisperForAudioClassification": "an encoder without a decoder",
    "WhisperForCausalLM": "a decoder without an encoder",
}
CLASS_IDS = SpeechTokens.of(ENGLISH)  # what ids are where none are given
PADDED = (
    "pad_token_id is {given}, and the end of text is {eos}: padding is {pad} here, which no text "
    "should have; --pad-id gives another, and the file's own goes back out"
)


class Whisper(HuggingFace):
    name = "whisper"
    model_type = "whisper"
    architecture = "WhisperForConditionalGeneration"
    fields = FIELDS
    sizes = {
        "hidden_dim": "d_model",
        "num_encoder_layers": "encoder_layers",
        "num_decoder_layers": "decoder_layers",
        "feature_dim": "num_mel_bins",
        "max_source_length": "max_source_positions",
        "max_length": "max_target_positions",
    }
    defaults = DEFAULTS | {"dropout": 0.0}
    older = {}
    silent = (*SILENT, *SPOKEN)
    ties = ("target_output", "none")
    output_bias = False
    forces_eos = False

    def _read(self, source: Source) -> tuple[Settings, TransformerConfig | None]:
        check_class(source)
        settings, config = super()._read(source)
        given, found = settings.get("num_mel_bins"), feature_dim(source)
        settings.faults.require(
            found in (None, given),
            f"num_mel_bins is {given!r}, and {CONVOLUTIONS[0]} takes {found} numbers a frame",
        )
        return settings, config

    def table_rows(self, source: Source) -> dict[str, int]:
        return {k: n for k, n in super().table_rows(source).items() if k == "target_vocab_size"}

    def vocabularies(self, settings: Settings) -> dict[str, Any]:
        """The source has none."""
        ties = "target_output" if self.is_tied(settings) else "none"
        return {
            "source_vocab_size": 0,
            "target_vocab_size": settings.need("vocab_size"),
            "tied_embeddings": ties,
        }

    def _embedding_scale(self, settings: Settings, D: Any) -> float:
        """No class multiplies by it, whatever the key says."""
        settings.only("scale_embedding", False, None)
        return 1.0

    def _unknown_id(self, settings: Settings) -> Any:
        given = settings.get("unk_token_id")
        return self._end(settings, {}) if given is None else given

    def _end(self, settings: Settings, derived: dict[str, Any]) -> Any:
        given = settings.get("eos_token_id")
        return CLASS_IDS.end if given is None else one_id(settings, derived)

    def _tokens(self, settings: Settings, derived: dict[str, Any]) -> dict[str, Any]:
        """Absent ids are the class's, which are those of the vocabulary of English alone."""
        eos, size = self._end(settings, derived), settings.get("vocab_size")
        start = settings.get("decoder_start_token_id")
        start = CLASS_IDS.start if start is None else start
        pad = settings.get("pad_token_id", CLASS_IDS.end)
        bos = settings.get("bos_token_id")
        ids = {"eos_id": eos, "decoder_start_id": start, "bos_id": eos if bos is None else bos}
        if not isinstance(size, int) or pad not in (None, eos) and known_tokens(size) is None:
            return ids | {"pad_id": pad}
        derived["pad_id"] = padding(size, (eos, start))
        if known_tokens(size) is None:
            told = PADDED.format(given=pad, eos=eos, pad=derived["pad_id"])
            settings.notes.append(told)
        return ids | {"pad_id": derived["pad_id"]}

    def _check_fixed(self, settings: Settings) -> None:
        super()._check_fixed(settings)
        settings.only("use_weighted_layer_sum", False, None)
        settings.training_only("apply_spec_augment", False)

    def expressed(self, config: TransformerConfig) -> dict[str, Any]:
        tokens = known_tokens(config.target_vocab_size)
        usual = tokens is not None and config.pad_id == tokens.start_of_lm
        return super().expressed(config) | {
            "vocab_size": config.target_vocab_size,
            "pad_token_id": config.eos_id if usual else config.pad_id,
        }

    def allowed(self, config: TransformerConfig) -> dict[str, tuple[Any, ...]]:
        found = super().allowed(config) | {"embedding_scale": (1.0,)}
        return {name: values for name, values in found.items() if name not in FIRST_VALUES}

    def check_parts(self, config: TransformerConfig, faults: Faults) -> None:
        check_common_parts(config, self.name, faults)
        message = f"feature_dim is 0; {self.name} takes features of sound, not tokens"
        faults.require(config.feature_dim > 0, message)

    def check_vocabularies(self, config: TransformerConfig, faults: Faults) -> None:
        """There is one."""

    def like(self) -> TransformerConfig:
        other = {"source_vocab_size": 0, "feature_dim": 4, "tied_embeddings": "target_output"}
        return TransformerConfig.from_dict(LIKE | FIELDS | other | {"output_bias": "none"})

    def table_rules(self, config: TransformerConfig, prefix: str, source: Source) -> list[Rule]:
        table = prefix + TARGET_TABLE
        if config.tied_embeddings == "target_output":
            return [one_table([table, OUTPUT_TABLE], OUR_TARGET, source.tensors)]
        return [rename(table, OUR_TARGET), rename(OUTPUT_TABLE, OUR_OUTPUT)]

    def saved_tables(self, config: TransformerConfig) -> list[str]:
        tied = config.tied_embeddings == "target_output"
        return [PREFIX + TARGET_TABLE] + ([] if tied else [OUTPUT_TABLE])


def check_class(source: Source) -> None:
    """One sentence about what is no encoder-decoder; its other faults would say nothing."""
    for name in (source.settings or {}).get("architectures") or ():
        if name in OTHER_HEADS:
            raise UserError(
                f"{source.tensors.label} is a {name}, {OTHER_HEADS[name]}; only "
                "encoder-decoders are read"
            )


def feature_dim(source: Source) -> int | None:
    """The numbers in a frame by the first convolution (D, M, 3); None where it is not there."""
    for prefix in (PREFIX, ""):
        header = source.tensors.get(f"{prefix}{CONVOLUTIONS[0]}.weight")
        if header is not None and len(header.shape) == 3:
            return header.shape[1]
    return None
