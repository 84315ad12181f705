"""OpenNMT-py Transformers (versions 2 and 3): read, not written.

The tensors are those of the checkpoint's ``model``, and of its ``generator`` after that prefix; the
settings are its ``opt`` as a mapping and, under the key ``vocab``, its ``vocab``, which numbers the
special tokens. The model is always pre-norm with a final norm. Embeddings are multiplied by sqrt(D)
inside the module that adds positions: a model without positions does not scale.
"""

from __future__ import annotations

from convert.core.operations import Duplicate
from convert.core.rules import Rule, rename
from convert.core.tensors import Tensors
from convert.families.base import Family, Reading, Settings, Source
from convert.families.opennmt.config import (
    SINUSOIDS,
    SOURCE_TABLE,
    STACKS,
    TARGET_TABLE,
    config_values,
    generator_of,
    has,
)
from convert.families.sinusoids import sinusoid_rule
from transformer_spec import TransformerConfig, tied_weights

HALVES = ("encoder", "decoder")
OURS = {"encoder": "encoder.enc_layers", "decoder": "decoder.dec_layers"}

ADVICE = "OpenNMT-py computes with the table in the file, so that --drop makes another function"

# Theirs -> ours, inside a layer.
LINEARS = {
    "linear_query": "fcQ",
    "linear_keys": "fcK",
    "linear_values": "fcV",
    "final_linear": "fcOut",
}
ATTENTIONS = {
    "encoder": {"self_attn": "multiheadattention"},
    "decoder": {"self_attn": "multiheadattention1", "context_attn": "multiheadattention2"},
}
NORMS = {
    "encoder": {"layer_norm": "layerNorm1", "feed_forward.layer_norm": "layerNorm2"},
    "decoder": {
        "layer_norm_1": "layerNorm1",
        "layer_norm_2": "layerNorm2",
        "feed_forward.layer_norm": "layerNorm3",
    },
}


class OpenNMT(Family):
    """Checkpoints of OpenNMT-py's encoder-decoder Transformer."""

    name = "opennmt"
    padding_gradient = False

    def recognizes(self, source: Source) -> bool:
        layers = tuple(f"{stack}." for stack in STACKS.values())
        starts = {start for name in source.tensors for start in layers if name.startswith(start)}
        return len(starts) == 2 and SOURCE_TABLE in source.tensors

    def read_config(self, source: Source) -> Reading:
        settings = Settings(source.settings or {}, source.ignored)
        if source.settings is None:
            settings.faults.add("its options are missing: the checkpoint's opt says what it is")
        values = config_values(source, settings)
        settings.finish("this OpenNMT-py checkpoint")
        return Reading(TransformerConfig.from_dict(values), settings.notes)

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        names = source.tensors
        rules = _tables(config, names)
        generator = generator_of(names)
        if config.output_bias != "none":
            rules.append(rename(f"{generator}.bias", "decoder.finalFc.bias"))
        norm_leaves = ("a_2", "b_2") if has(names, r".*\.a_2") else ("weight", "bias")
        for half in HALVES:
            for i in range(getattr(config, f"num_{half}_layers")):
                rules += _layer(config, half, i, norm_leaves)
            rules += _norm(f"{half}.layer_norm", f"{half}.final_norm", norm_leaves)
            if f"{half}.{SINUSOIDS}" in names and config.encoder_positions == "sinusoidal":
                rules.append(sinusoid_rule(f"{half}.{SINUSOIDS}", config, ADVICE))
        return rules


def _tables(config: TransformerConfig, names: Tensors) -> list[Rule]:
    """Tied tables are stored under every name, or some formats keep one of them only."""
    output = f"{generator_of(names)}.weight"
    tables = {
        SOURCE_TABLE: "encoder.embedding.weight",
        TARGET_TABLE: "decoder.embedding.weight",
        output: "decoder.finalFc.weight",
    }
    kept, groups = tied_weights(config), dict[str, list[str]]()
    for theirs, ours in tables.items():
        groups.setdefault(kept.get(ours, ours), []).append(theirs)
    return [_table(theirs, ours, names) for ours, theirs in groups.items()]


def _table(theirs: list[str], ours: str, names: Tensors) -> Rule:
    there = tuple(name for name in theirs if name in names) or tuple(theirs[:1])
    if len(there) == 1:
        return rename(there[0], ours)
    return Rule(there, (ours,), Duplicate(len(there)).reversed, "tied")


def _layer(
    config: TransformerConfig, half: str, i: int, norm_leaves: tuple[str, str]
) -> list[Rule]:
    theirs, ours = f"{STACKS[half]}.{i}", f"{OURS[half]}.{i}"
    rules = []
    for attention, mine in ATTENTIONS[half].items():
        for name, part in LINEARS.items():
            pair = f"{theirs}.{attention}.{name}", f"{ours}.{mine}.{part}"
            rules += _linear(*pair, config.attention_bias)
    for name, part in (("w_1", "fc1"), ("w_2", "fc2")):
        rules += _linear(f"{theirs}.feed_forward.{name}", f"{ours}.ffn.{part}", config.ffn_bias)
    for name, mine in NORMS[half].items():
        rules += _norm(f"{theirs}.{name}", f"{ours}.{mine}", norm_leaves)
    return rules


def _linear(theirs: str, ours: str, bias: bool) -> list[Rule]:
    leaves = ("weight", "bias") if bias else ("weight",)
    return [rename(f"{theirs}.{leaf}", f"{ours}.{leaf}") for leaf in leaves]


def _norm(theirs: str, ours: str, leaves: tuple[str, str]) -> list[Rule]:
    """Early versions called a norm's weight and bias a_2 and b_2."""
    pairs = zip(leaves, ("weight", "bias"), strict=True)
    return [rename(f"{theirs}.{leaf}", f"{ours}.{mine}") for leaf, mine in pairs]
