"""torch.nn.Transformer inside a user's own module.

The names inside the stacks of layers are PyTorch's; embeddings, positions and output projection are
the wrapper's, and ``Source.wrapper`` says where they are. There is no settings file but the one
that is written here: sizes, layers, biases and tied tables are read off the tensors, everything
else must be given as flags; what PyTorch has a default for is not taken from there unasked, for the
wrapper may have set it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from convert.core.operations import (
    AddAxis,
    Chain,
    Duplicate,
    Split,
    WithZeros,
)
from convert.core.rules import Rule, rename
from convert.core.tensors import Held, Tensors
from convert.families.base import Family, Reading, Source
from convert.families.sinusoids import position_buffers, sinusoid_rule
from convert.families.torch_nn.config import (
    CLASS,
    TABLES,
    arguments,
    around,
    check_export,
    config_of,
    notes_of,
    told,
)
from convert.families.torch_nn.wrapper import (
    HALVES,
    USUAL,
    Layout,
    find_layout,
    stacks,
    usual_layout,
)
from transformer_spec import Faults, TransformerConfig, tied_weights, trained_names, weight_shapes

# Ours -> theirs, inside a layer.
LAYERS = {"encoder": "encoder.enc_layers", "decoder": "decoder.dec_layers"}
ATTENTIONS = {
    "encoder": {"multiheadattention": "self_attn"},
    "decoder": {"multiheadattention1": "self_attn", "multiheadattention2": "multihead_attn"},
}
NORMS = {"encoder": 2, "decoder": 3}
SHARED = "one weight under several names"
ADVICE = (
    "--map encoder.pos_embedding={0} and decoder.pos_embedding={0} take the table as it is, with "
    "--encoder-positions frozen --decoder-positions frozen never trained"
)
TWICE = "one table in several places"


class TorchTransformer(Family):
    """Names of ``torch.nn.Transformer``; ``Source.wrapper`` and ``Source.flags`` say the rest."""

    name = "torch-nn"
    containers = ("pt", "safetensors")
    wrapped = True
    passes_over = False

    def recognizes(self, source: Source) -> bool:
        return all(stacks(source.tensors).values())

    def read_config(self, source: Source) -> Reading:
        faults = Faults()
        source = replace(source, flags={**told(source.settings), **source.flags})
        layout = find_layout(source, faults)
        config = config_of(source, layout, faults)
        return Reading(config, notes_of(source, layout, config))

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        faults = Faults()
        frozen = weight_shapes(config).keys() - set(trained_names(config))
        layout = find_layout(source, faults, tied_weights(config), frozen)
        faults.raise_if_any("this torch.nn.Transformer cannot be read")
        rules = _rules(config, layout)
        return rules + _stored_sinusoids(config, source.tensors, rules)

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """A module with src_emb, tgt_emb, generator and transformer, or as ``wrapper`` has it."""
        shapes = weight_shapes(config)
        arrays: dict[str, np.ndarray] = {}
        for rule in _rules(config, usual_layout(config, wrapper or {})):
            found = rule.operation.inverse_shapes(*(shapes[name] for name in rule.targets))
            for name, shape in zip(rule.sources, found, strict=True):
                arrays[name] = np.broadcast_to(np.float32(0), shape)
        return Source(Held(arrays, "torch.nn.Transformer"), wrapper=wrapper or {})

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The arguments of nn.Transformer, and what the module around it has to do."""
        check_export(config)
        return {CLASS: arguments(config), "wrapper": around(config)}


def _rules(config: TransformerConfig, layout: Layout) -> list[Rule]:
    rules = _tables(config, layout) + _outside(config, layout)
    for half in HALVES:
        for i in range(getattr(config, f"num_{half}_layers")):
            rules += _layer(config, layout, half, i)
        if config.final_norm:
            rules += _norm(layout.norm_bias, f"{layout.prefix(half)}norm", f"{half}.final_norm")
    return rules


def _tables(config: TransformerConfig, layout: Layout) -> list[Rule]:
    """Word tables: ours that are tied may have several names of theirs, ours that are not, one."""
    kept, names = tied_weights(config), dict[str, dict[str, None]]()
    for ours in TABLES:
        mine = names.setdefault(kept.get(ours, ours), {})
        if ours in layout.tensors:
            mine[layout.tensors[ours]] = None
    groups = dict[tuple[str, ...], list[str]]()
    for ours, theirs in names.items():
        expected = {f"{USUAL[ours.removesuffix('.weight')]}.weight": None}
        groups.setdefault(tuple(theirs or expected), []).append(ours)
    return [_shared(theirs, tuple(ours)) for theirs, ours in groups.items()]


def _shared(theirs: tuple[str, ...], ours: tuple[str, ...]) -> Rule:
    if len(theirs) > 1:
        return Rule(theirs, ours, Duplicate(len(theirs)).reversed, SHARED)
    if len(ours) > 1:
        return Rule(theirs, ours, Duplicate(len(ours)), TWICE)
    return Rule(theirs, ours)


def _outside(config: TransformerConfig, layout: Layout) -> list[Rule]:
    """Learned positions, norms of embeddings and the output's bias."""
    rules, groups = list[Rule](), dict[str, list[str]]()
    for ours in weight_shapes(config):
        module, _, leaf = ours.rpartition(".")
        if module not in USUAL or ours in TABLES:
            continue
        theirs = layout.tensors.get(ours, f"{USUAL[module]}.{leaf}")
        if module.endswith("embedding_norm"):
            if leaf == "weight":
                bias = f"{module}.bias" in layout.tensors
                rules += _norm(bias, theirs.removesuffix(".weight"), module)
        else:
            groups.setdefault(theirs, []).append(ours)
    return rules + [_whole(layout, theirs, tuple(ours)) for theirs, ours in groups.items()]


def _whole(layout: Layout, theirs: str, ours: tuple[str, ...]) -> Rule:
    """A tensor in one or two places of ours, perhaps with an axis that ours has not."""
    if theirs not in layout.axes:
        return _shared((theirs,), ours)
    axis = AddAxis(layout.axes[theirs]).reversed
    if len(ours) == 1:
        return rename(theirs, ours[0], axis)
    return Rule((theirs,), ours, Chain(axis, Duplicate(len(ours))), TWICE)


def _stored_sinusoids(config: TransformerConfig, given: Tensors, rules: list[Rule]) -> list[Rule]:
    """A buffer of the module's own that the config stands for."""
    if "sinusoidal" not in (config.encoder_positions, config.decoder_positions):
        return []
    taken = {name for rule in rules for name in rule.sources}
    names = position_buffers(given, taken, config)
    return [sinusoid_rule(name, config, ADVICE.format(name)) for name in names]


def _layer(config: TransformerConfig, layout: Layout, half: str, i: int) -> list[Rule]:
    theirs, ours = f"{layout.prefix(half)}layers.{i}", f"{LAYERS[half]}.{i}"
    rules = []
    for mine, name in ATTENTIONS[half].items():
        rules += _attention(config, layout, f"{theirs}.{name}", f"{ours}.{mine}")
    for number in range(1, NORMS[half] + 1):
        rules += _norm(layout.norm_bias, f"{theirs}.norm{number}", f"{ours}.layerNorm{number}")
    for number in (1, 2):
        names = f"{theirs}.linear{number}", f"{ours}.ffn.fc{number}"
        rules += _linear(*names, config.ffn_bias)
    return rules


def _attention(config: TransformerConfig, layout: Layout, theirs: str, ours: str) -> list[Rule]:
    """Rows of the fused projection are q, k, v; weights of their own where widths differed."""
    parts = ("fcQ", "fcK", "fcV")
    leaves = ("weight", "bias") if config.attention_bias else ("weight",)
    rules = []
    for leaf in leaves:
        mine = tuple(f"{ours}.{part}.{leaf}" for part in parts)
        if leaf == "weight" and theirs in layout.separate:
            separate = (f"{theirs}.{letter}_proj_weight" for letter in "qkv")
            rules += [rename(name, target) for name, target in zip(separate, mine, strict=True)]
        else:
            rules.append(Rule((f"{theirs}.in_proj_{leaf}",), mine, Split(3)))
    return rules + _linear(f"{theirs}.out_proj", f"{ours}.fcOut", config.attention_bias)


def _linear(theirs: str, ours: str, bias: bool) -> list[Rule]:
    leaves = ("weight", "bias") if bias else ("weight",)
    return [rename(f"{theirs}.{leaf}", f"{ours}.{leaf}") for leaf in leaves]


def _norm(bias: bool, theirs: str, ours: str) -> list[Rule]:
    if bias:
        return _linear(theirs, ours, True)
    return [Rule((f"{theirs}.weight",), (f"{ours}.weight", f"{ours}.bias"), WithZeros())]
