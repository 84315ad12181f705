"""Our weights under the names of CTranslate2's ``TransformerSpec`` (revision 7), and what it lacks.

Speech models have those of its ``WhisperSpec`` (revision 3): two convolutions for a source table.
Its self-attention holds Q, K and V as one matrix, its cross-attention K and V; norms lie inside
the sub-layer that they belong to. Position tables begin at the first token's position; a table of
relative positions lies in every layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convert.core.fused_biases import FusedBiases
from convert.core.operations import COPY, Duplicate, Given, RowsFrom, Split
from convert.core.rules import Rule, rename
from transformer_spec import (
    RELATIVE,
    STORED,
    Faults,
    TransformerConfig,
    sinusoid_table,
    tied_weights,
)

HALVES = ("encoder", "decoder")
TABLES = {
    "encoder.embedding.weight": "encoder/embeddings_0/weight",
    "decoder.embedding.weight": "decoder/embeddings/weight",
    "decoder.finalFc.weight": "decoder/projection/weight",
}
NORMS = {"embedding_norm": "layernorm_embedding", "final_norm": "layer_norm"}
# The parts of an attention that each of CTranslate2's linear layers fuses.
SELF = (("fcQ", "fcK", "fcV"), ("fcOut",))
CROSS = (("fcQ",), ("fcK", "fcV"), ("fcOut",))
# Our sub-layer and its norm, their sub-layer and its linear layers.
ATTENTIONS = {
    "encoder": [("multiheadattention", "layerNorm1", "self_attention", SELF)],
    "decoder": [
        ("multiheadattention1", "layerNorm1", "self_attention", SELF),
        ("multiheadattention2", "layerNorm2", "attention", CROSS),
    ],
}
LAYERS = {"encoder": "encoder.enc_layers", "decoder": "decoder.dec_layers"}
TABLE = "self_attention/relative_attention"
LAST_NORM = {"encoder": "layerNorm2", "decoder": "layerNorm3"}
CONVOLUTIONS = ("conv1", "conv2")
GATE = "identity: a gate that relu keeps at 1"


def check_expressible(config: TransformerConfig, faults: Faults) -> None:
    """Add a fault for each field that CTranslate2 has no way to compute."""
    for half in HALVES:
        name = f"num_{half}_layers"
        count = getattr(config, name)
        faults.require(count >= 1, f"{name} is {count}; CTranslate2 needs at least 1")
        late = getattr(config, f"{half}_positions") == "learned_after_norm"
        faults.require(
            not (late and config.embedding_norm),
            f"{half}_positions is 'learned_after_norm'; CTranslate2 norms after adding positions",
        )
    faults.require(config.norm != "std", "norm is 'std', which CTranslate2 has not")
    if config.gated_ffn and config.activation == "identity":
        faults.add("gated_ffn is True with activation 'identity', which CTranslate2 has not")


def ctranslate2_rules(config: TransformerConfig) -> list[Rule]:
    """Canonical names -> every variable of the specification that is an array."""
    rules = _tables(config) + _convolutions(config)
    if config.output_bias != "none":
        rules.append(rename("decoder.finalFc.bias", "decoder/projection/bias"))
    for half in HALVES:
        rules += _positions(config, half)
        for ours, theirs in NORMS.items():
            there = getattr(config, ours)
            rules += _norm(config, f"{half}.{ours}", f"{half}/{theirs}") if there else []
        for i in range(getattr(config, f"num_{half}_layers")):
            rules += _layer(config, half, f"{LAYERS[half]}.{i}", f"{half}/layer_{i}")
    return rules


def is_relative(config: TransformerConfig, half: str) -> bool:
    """Whether the self-attention of a half adds a table of relative positions."""
    return getattr(config, f"{half}_positions") == RELATIVE


def scalars(config: TransformerConfig) -> dict[str, Any]:
    """The variables of the specification that are single numbers and depend on more than sizes."""
    values: dict[str, Any] = {}
    if config.output_scale != 1.0:
        values["decoder/scale_outputs"] = config.output_scale
    for half in HALVES:
        values[f"{half}/pre_norm"] = config.norm_position == "pre"
        values[f"{half}/scale_embeddings"] = config.embedding_scale
        for i in range(getattr(config, f"num_{half}_layers")):
            for _, _, name, _ in ATTENTIONS[half]:
                values[f"{half}/layer_{i}/{name}/queries_scale"] = config.attention_scale
            if is_relative(config, half):
                farthest = np.int32(config.relative_max_distance)
                values[f"{half}/layer_{i}/{TABLE}_max_distance"] = farthest
    return values


def _convolutions(config: TransformerConfig) -> list[Rule]:
    """Those that take the frames of a speech model's source."""
    names = [f"{name}.{leaf}" for name in CONVOLUTIONS for leaf in ("weight", "bias")]
    there = names if config.feature_dim else []
    return [rename(f"encoder.{name}", f"encoder/{name.replace('.', '/')}") for name in there]


def _tables(config: TransformerConfig) -> list[Rule]:
    """A tied table is written once; the specification refers to it from its other places."""
    tied, rules = tied_weights(config), []
    skipped = {"encoder.embedding.weight"} if config.feature_dim else set[str]()
    for name in [name for name in TABLES if name not in tied and name not in skipped]:
        names = [name, *(alias for alias, kept in tied.items() if kept == name)]
        operation = Duplicate(len(names)) if len(names) > 1 else COPY
        rules.append(Rule((name,), tuple(TABLES[name] for name in names), operation))
    return rules


def _positions(config: TransformerConfig, half: str) -> list[Rule]:
    """The tables of one half: those of relative positions, or the one that is added."""
    if not is_relative(config, half):
        return [_added_positions(config, half)]
    count = getattr(config, f"num_{half}_layers")
    layers = tuple(f"{half}/layer_{i}/{TABLE}_bias" for i in range(count))
    if not config.relative_per_layer:
        reason = "one table of relative positions in every layer"
        source = f"{half}.relative_bias.weight"
        return [Rule((source,), layers, Duplicate(count) if count > 1 else COPY, reason)]
    attention = ATTENTIONS[half][0][0]
    names = (f"{LAYERS[half]}.{i}.{attention}.relative_bias.weight" for i in range(count))
    return [rename(name, target) for name, target in zip(names, layers, strict=True)]


def _added_positions(config: TransformerConfig, half: str) -> Rule:
    """Without a table CTranslate2 would add sinusoids of its own, so there always is one."""
    target = (f"{half}/position_encodings/encodings",)
    kind, offset = getattr(config, f"{half}_positions"), config.position_offset
    if kind in STORED:
        source = (f"{half}.pos_embedding.weight",)
        if not offset:
            return Rule(source, target)
        return Rule(source, target, RowsFrom(offset), f"no token stands before position {offset}")
    if kind == "sinusoidal":
        table = sinusoid_table(config)[offset:]
        return Rule((), target, Given(table), f"sinusoids from position {offset}")
    zeros = np.zeros((config.max_length, config.hidden_dim), np.float32)
    return Rule((), target, Given(zeros), "no positions: zeros are added")


def _layer(config: TransformerConfig, half: str, ours: str, theirs: str) -> list[Rule]:
    rules = []
    for attention, norm, name, fused in ATTENTIONS[half]:
        for number, parts in enumerate(fused):
            sources = [f"{ours}.{attention}.{part}" for part in parts]
            biased = [_has_bias(config, part) for part in parts]
            rules += _linear(sources, f"{theirs}/{name}/linear_{number}", biased)
        rules += _norm(config, f"{ours}.{norm}", f"{theirs}/{name}/layer_norm")
    rules += _norm(config, f"{ours}.{LAST_NORM[half]}", f"{theirs}/ffn/layer_norm")
    return rules + _feed_forward(config, f"{ours}.ffn", f"{theirs}/ffn")


def _has_bias(config: TransformerConfig, part: str) -> bool:
    """Whether a linear layer of an attention has a bias."""
    if part == "fcOut":
        return config.attention_output_bias
    return config.key_bias if part == "fcK" else config.attention_bias


def _feed_forward(config: TransformerConfig, ours: str, theirs: str) -> list[Rule]:
    """CTranslate2 has no identity: its gated feed-forward is one where the gate stays at 1."""
    first, bias = f"{theirs}/linear_0", [config.ffn_bias]
    rules = _linear([f"{ours}.fc2"], f"{theirs}/linear_1", bias)
    if config.gated_ffn:
        rules += _linear([f"{ours}.fc3"], f"{first}_noact", bias)
    if config.activation != "identity":
        return rules + _linear([f"{ours}.fc1"], first, bias)
    zeros = np.zeros((config.inner_dim, config.hidden_dim), np.float32)
    ones = np.ones(config.inner_dim, np.float32)
    rules += [Rule((), (f"{first}/weight",), Given(zeros), GATE)]
    rules += [Rule((), (f"{first}/bias",), Given(ones), GATE)]
    return rules + _linear([f"{ours}.fc1"], f"{theirs}/linear_0_noact", bias)


def _linear(ours: list[str], theirs: str, biased: list[bool]) -> list[Rule]:
    """Linear layers as one, whose bias has zeros for those that have none."""
    fused = Split(len(ours)).reversed if len(ours) > 1 else COPY
    weights = tuple(f"{name}.weight" for name in ours)
    biases = tuple(f"{name}.bias" for name, has in zip(ours, biased, strict=True) if has)
    rules = [Rule(weights, (f"{theirs}/weight",), fused)]
    if biases:
        operation = fused if all(biased) else FusedBiases(biased)
        rules.append(Rule(biases, (f"{theirs}/bias",), operation))
    return rules


def _norm(config: TransformerConfig, ours: str, theirs: str) -> list[Rule]:
    rules = [rename(f"{ours}.weight", f"{theirs}/gamma")]
    return rules + [rename(f"{ours}.bias", f"{theirs}/beta")] * (config.norm == "layer")
