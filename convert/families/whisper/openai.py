"""Whisper as OpenAI's own program stores it: a ``.pt`` of ten sizes and of weights.

Everything else follows from them: the ids from the size of the vocabulary, the width of the
feed-forward from that of the model. Its own files are float16, as ``--dtype float16`` writes them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from convert.core.rules import Rule, rename
from convert.families.base import Family, Reading, Settings, Source, announced
from convert.families.huggingface.library_class import require_one_of
from convert.families.usual_parts import check_common_parts
from convert.families.whisper.ids import known_tokens, padding
from convert.families.whisper.names import FIELDS, FIRST_VALUES, check_width, feature_dim
from convert.formats.content import Placed
from training_recipe.speech.tokens import SpeechTokens
from transformer_spec import (
    DROPOUTS,
    ConfigError,
    Faults,
    TransformerConfig,
    UserError,
    weight_shapes,
)
from transformer_spec.strict import is_whole

DIMS, WEIGHTS = "dims", "model_state_dict"
# Sizes of the file -> ours.
SIZES = {
    "n_mels": "feature_dim",
    "n_audio_ctx": "max_source_length",
    "n_audio_state": "hidden_dim",
    "n_audio_head": "num_heads",
    "n_audio_layer": "num_encoder_layers",
    "n_vocab": "target_vocab_size",
    "n_text_ctx": "max_length",
    "n_text_state": "hidden_dim",
    "n_text_head": "num_heads",
    "n_text_layer": "num_decoder_layers",
}
PAIRS = (("n_audio_state", "n_text_state"), ("n_audio_head", "n_text_head"))
INNER = 4  # widths of the model that the feed-forward has
COMPUTED: dict[str, Any] = FIELDS | {
    "activation": "gelu",
    "tied_embeddings": "target_output",
    "output_bias": "none",
    "norm_epsilon": 1e-5,
    "attention_bias": True,
    "ffn_bias": True,
    "position_offset": 0,
}
IDS = ("eos_id", "decoder_start_id")
SOURCE_TABLE = "encoder.positional_embedding"
OUTSIDE = {
    "encoder.conv1": "encoder.conv1",
    "encoder.conv2": "encoder.conv2",
    "encoder.final_norm": "encoder.ln_post",
    "decoder.embedding": "decoder.token_embedding",
    "decoder.final_norm": "decoder.ln",
}
TABLES = {f"{half}.pos_embedding.weight": f"{half}.positional_embedding"
          for half in ("encoder", "decoder")}  # fmt: skip
PROJECTIONS = {"fcQ": "query", "fcK": "key", "fcV": "value", "fcOut": "out"}
# Of each half: its layers, and of each of their modules the name.
STACKS = {
    "encoder": (
        "encoder.enc_layers",
        {"multiheadattention": "attn"},
        {"layerNorm1": "attn_ln", "layerNorm2": "mlp_ln"},
    ),
    "decoder": (
        "decoder.dec_layers",
        {"multiheadattention1": "attn", "multiheadattention2": "cross_attn"},
        {"layerNorm1": "attn_ln", "layerNorm2": "cross_attn_ln", "layerNorm3": "mlp_ln"},
    ),
}
FEED_FORWARD = {"ffn.fc1": "mlp.0", "ffn.fc2": "mlp.2"}
NO_TOKENIZER = (
    "a file of OpenAI's holds no tokenizer and no settings of generation: special ids follow from "
    "the size of its vocabulary, texts need a tokenizer.json beside it"
)
RATES = "OpenAI's program drops nothing out: {} are 0 there"
NO_IDS = "n_vocab {} is none of Whisper's: what ids mean is not in the file that is written"


class WhisperOpenAI(Family):
    """OpenAI's file; its settings are the ten sizes in it."""

    name = "whisper-openai"
    containers = ("pt",)
    settings_file = ""

    def recognizes(self, source: Source) -> bool:
        return SIZES.keys() <= (source.settings or {}).keys() and SOURCE_TABLE in source.tensors

    def read_config(self, source: Source) -> Reading:
        if not SIZES.keys() & (source.settings or {}).keys():
            raise UserError(
                f"a file of OpenAI's Whisper holds {DIMS}, its ten sizes, beside {WEIGHTS}, and "
                f"none such are with {source.tensors.label}: heads are not in the shapes; give "
                f"--config FILE, a JSON object of {', '.join(SIZES)}"
            )
        settings = Settings(source.settings or {}, source.ignored)
        values = {ours: settings.need(theirs) for theirs, ours in SIZES.items()}
        for one, other in PAIRS:
            first, second = settings.get(one), settings.get(other)
            alike = f"{one} is {first!r} and {other} {second!r}; both halves must be alike"
            settings.faults.require(first == second, alike)
        _check_sizes(settings, source)
        complete = not settings.faults.messages
        inner = {"inner_dim": INNER * values["hidden_dim"]} if complete else {}
        found = config_of(values | inner, "n_vocab", source, settings.faults) if complete else None
        settings.finish(f"{self.name} {DIMS}")
        assert found is not None
        return Reading(found, [NO_TOKENIZER])

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        theirs = _modules(config)
        rules = []
        for name in weight_shapes(config):
            module, _, leaf = name.rpartition(".")
            rules.append(rename(TABLES.get(name) or f"{theirs[module]}.{leaf}", name))
        return rules

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """What its program saves, float32."""
        shapes = weight_shapes(config)
        rules = self.rules(config, announced({}))
        return announced({rule.sources[0]: shapes[rule.targets[0]] for rule in rules})

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        check_expressible(config)
        return {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}

    def torch_content(
        self, settings: Mapping[str, Any], names: Collection[str]
    ) -> dict[str, Any] | None:
        return {DIMS: dict(settings), WEIGHTS: {name: Placed(name) for name in names}}

    def adapted(self, config: TransformerConfig) -> tuple[TransformerConfig, list[str]]:
        """Without dropout, which changes training alone; ids that are not in the file."""
        notes, rates = list[str](), [name for name in DROPOUTS if getattr(config, name)]
        if rates:
            notes.append(RATES.format(", ".join(rates)))
            config = replace(config, **dict.fromkeys(rates, 0.0))
        if known_tokens(config.target_vocab_size) is None:
            notes.append(NO_IDS.format(config.target_vocab_size))
        return config, notes


def _check_sizes(settings: Settings, source: Source) -> None:
    """Whole numbers, and that of a frame what the first convolution takes."""
    for name in SIZES:
        value = settings.get(name)
        whole = value is None or is_whole(value, 1)
        settings.faults.require(whole, f"{name} is {value!r}; it must be a whole number above 0")
    given, found = settings.get("n_mels"), feature_dim(source)
    settings.faults.require(
        found in (None, given) or not is_whole(given, 1),
        f"n_mels is {given!r}, and encoder.conv1 takes {found} numbers a frame",
    )


def config_of(
    values: Mapping[str, Any], vocabulary: str, source: Source, faults: Faults
) -> TransformerConfig | None:
    """The config of sizes; the ids of a vocabulary that is not published have to be given.

    ``vocabulary`` is what to call its size. Where there is a fault there is no config.
    """
    told = COMPUTED | dict.fromkeys(DROPOUTS, 0.0) | {"source_vocab_size": 0} | dict(values)
    size, flags = values["target_vocab_size"], source.flags
    tokens = known_tokens(size)
    ids = _ids(tokens) if tokens else {name: flags[name] for name in IDS if name in flags}
    for name in (name for name in IDS if name not in ids):
        flag = f"--{name.replace('_', '-')}"
        told_size = f"{vocabulary} {size} is none of Whisper's"
        faults.add(f"{name} is not known: {told_size}; {flag} gives it")
    if faults.messages:
        return None
    eos = ids["eos_id"]
    usual = {"pad_id": padding(size, tuple(ids.values())), "bos_id": eos, "unk_id": eos}
    given = {name: flags[name] for name in (*usual, *DROPOUTS) if name in flags}
    try:
        return TransformerConfig(**{**told, **ids, **usual, **given})
    except ConfigError as error:
        faults.take(error)
        return None


def _ids(tokens: SpeechTokens) -> dict[str, int]:
    return {"eos_id": tokens.end, "decoder_start_id": tokens.start}


def check_expressible(config: TransformerConfig) -> None:
    """Raise one UserError with every setting that OpenAI's program has otherwise."""
    faults, name = Faults(), "OpenAI's Whisper"
    check_computed(config, name, faults)
    require_one_of(config, {"tied_embeddings": (COMPUTED["tied_embeddings"],)}, name, faults)
    D, F = config.hidden_dim, config.inner_dim
    faults.require(
        F == INNER * D, f"inner_dim is {F}; {name} has {INNER} x hidden_dim, {INNER * D}"
    )
    faults.raise_if_any(f"{name} cannot hold this model")


def check_computed(config: TransformerConfig, name: str, faults: Faults) -> None:
    """Add a fault for each setting that every Whisper has otherwise, sizes and ties left out."""
    left = (*FIRST_VALUES, "tied_embeddings")
    fields = {k: v for k, v in COMPUTED.items() if k not in left}
    tokens = known_tokens(config.target_vocab_size)
    fields |= _ids(tokens) if tokens else {}
    allowed: dict[str, tuple[Any, ...]] = {field: (value,) for field, value in fields.items()}
    A = config.head_dim
    allowed["attention_scale"] = (1 / math.sqrt(A), A**-0.5)  # one of which is rounded twice
    require_one_of(config, allowed, name, faults)
    check_common_parts(config, name, faults)
    check_width(config, name, faults)
    M = config.feature_dim
    faults.require(M > 0, f"feature_dim is 0; {name} takes features of sound, not tokens")


def _modules(config: TransformerConfig) -> dict[str, str]:
    """Our module -> theirs for everything but tables of positions."""
    names = dict(OUTSIDE)
    for half, (layers, attentions, norms) in STACKS.items():
        for i in range(getattr(config, f"num_{half}_layers")):
            inner = norms | FEED_FORWARD
            inner |= {
                f"{ours}.{part}": f"{theirs}.{name}"
                for ours, theirs in attentions.items()
                for part, name in PROJECTIONS.items()
            }
            names |= {f"{layers}.{i}.{x}": f"{half}.blocks.{i}.{y}" for x, y in inner.items()}
    return names
