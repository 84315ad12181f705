"""T5X's native checkpoints: T5, mT5, ByT5, UL2, UMT5 as they were trained, in JAX.

Kernels are (in, out) and may have an axis for the heads; the layers may be stacked; tables of
relative positions are (H, R), one for each half or one in each layer. Where the output is the
embedding, T5X divides the logits by sqrt(D).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from convert.core.operations import COPY, TRANSPOSE, Chain, MergeAxes, Operation, Unstack
from convert.core.rules import Rule, rename
from convert.families.base import Family, Reading, Source, announced, kept_aside
from convert.families.t5x.config import IDS, POSITIONS, SEMANTICS, reading_of
from convert.families.t5x.form import BIAS, EMBEDDER, HALVES, LAYER, OUTPUT, SELF, STACKED, Form
from convert.families.t5x.settings import GIN, WRITTEN, GinSettings, bindings_of, gin_text
from convert.families.usual_parts import check_text_parts
from transformer_spec import DROPOUTS, Faults, TransformerConfig, weight_shapes

OURS = {"encoder": "encoder.enc_layers", "decoder": "decoder.dec_layers"}
# Theirs -> ours, inside a layer.
ATTENTIONS = {
    "encoder": {"attention": "multiheadattention"},
    "decoder": {
        "self_attention": "multiheadattention1",
        "encoder_decoder_attention": "multiheadattention2",
    },
}
NORMS = {
    "encoder": ("pre_attention_layer_norm", "pre_mlp_layer_norm"),
    "decoder": (
        "pre_self_attention_layer_norm", "pre_cross_attention_layer_norm", "pre_mlp_layer_norm"
    ),
}  # fmt: skip
INWARD = {"query": "fcQ", "key": "fcK", "value": "fcV"}
FIXED = {"relative_buckets": 32, **POSITIONS}
MARK = re.compile(r"(?:.*\.)?__\w+__(?:\..*)?")  # flaxformer's, of versions of names
START = ("pad_id", "decoder_start_id")


class T5X(Family):
    """Names of T5X's examples and of flaxformer, whichever of their forms."""

    name = "t5x"
    containers = ("t5x",)
    settings_file = "config.gin"
    passes_over = False

    def recognizes(self, source: Source) -> bool:
        names = source.tensors
        layers = any(LAYER.match(n) or n.startswith(tuple(STACKED.values())) for n in names)
        return layers and any(name.endswith(EMBEDDER) for name in names)

    def read_config(self, source: Source) -> Reading:
        return reading_of(source)

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        axis = GinSettings(source.settings).one("axis", Faults())
        marks = [name for name in source.tensors if MARK.fullmatch(name)]
        rules = _rules(config, Form.of(source.tensors, axis))
        return rules + [kept_aside(name, "a mark of the format, no weight") for name in marks]

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """What T5X's examples save of such a model, layer by layer."""
        ours, theirs = weight_shapes(config), dict[str, tuple[int, ...]]()
        for rule in _rules(config, Form.usual(config)):
            shapes = rule.operation.inverse_shapes(*(ours[name] for name in rule.targets))
            theirs |= zip(rule.sources, shapes, strict=True)
        return announced(theirs)

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        check_expressible(config, original is not None)
        return {GIN: bindings_of(config)}

    def settings_text(self, settings: Mapping[str, Any]) -> str:
        return gin_text(settings[GIN])

    def adapted(self, config: TransformerConfig) -> tuple[TransformerConfig, list[str]]:
        """One rate of dropout for all places, and notes on what T5X has in its code alone."""
        notes = ["checkpoint_STEP has no state of an optimizer, which T5X keeps there to train on"]
        rates = {name: getattr(config, name) for name in DROPOUTS}
        if set(rates.values()) != {config.dropout}:
            notes.append(f"T5X has one rate of dropout: {config.dropout} stands for {rates}")
            config = replace(config, **dict.fromkeys(DROPOUTS, config.dropout))
        for name in FIXED:
            value = getattr(config, name)
            if value != FIXED[name]:
                notes.append(f"{name} is {value}: T5X's own examples have {FIXED[name]} fixed")
        return config, notes


def check_expressible(config: TransformerConfig, was_there: bool) -> None:
    """Every field that T5X has otherwise, in one UserError.

    Of a model that came from there, other token ids are those that the user gave it.
    """
    faults = Faults()
    tokens = {} if was_there else {name: IDS[name] for name in START}
    for name, value in (SEMANTICS | tokens).items():
        given = getattr(config, name)
        faults.require(given == value, f"{name} is {given!r}; T5X has {value!r} only")
    check_text_parts(config, "T5X", faults)
    known = ", ".join(WRITTEN)
    faults.require(
        config.activation in WRITTEN, f"activation is {config.activation!r}; T5X has {known}"
    )
    tied = config.tied_embeddings in ("all", "target_output")
    scale = config.hidden_dim**-0.5 if tied else 1.0
    faults.require(
        math.isclose(config.output_scale, scale, rel_tol=1e-12),
        f"output_scale is {config.output_scale}; with tied_embeddings {config.tied_embeddings!r} "
        f"T5X has {scale}",
    )
    faults.raise_if_any("T5X cannot hold this model")


def _rules(config: TransformerConfig, form: Form) -> list[Rule]:
    rules = _tables(form)
    for half in HALVES:
        layers = getattr(config, f"num_{half}_layers")
        rules.append(rename(f"{half}.{half}_norm.scale", f"{half}.final_norm.weight"))
        if not form.per_layer:
            rules.append(rename(f"{half}.{BIAS}", f"{half}.relative_bias.weight", TRANSPOSE))
        rules += _layers(_layer(config, form, half), form, half, layers)
    return rules


def _tables(form: Form) -> list[Rule]:
    ours = {half: f"{half}.embedding.weight" for half in HALVES}
    rules = [rename(form.table("encoder"), ours["encoder"])]
    if form.own_tables:
        rules.append(rename(form.table("decoder"), ours["decoder"]))
    if form.own_output:
        rules.append(rename(f"decoder.{OUTPUT}", "decoder.finalFc.weight", TRANSPOSE))
    return rules


def _layers(layer: list[Rule], form: Form, half: str, count: int) -> list[Rule]:
    """The rules of every layer, of those of one without its place; one rule where stacked."""
    ours = [f"{OURS[half]}.{i}." for i in range(count)]
    if half not in form.stacked:
        pairs = [(f"{half}.layers_{i}.", place) for i, place in enumerate(ours)]
        return [rule.prefixed(*pair) for pair in pairs for rule in layer]
    return [
        Rule(
            (STACKED[half] + rule.sources[0],),
            tuple(place + rule.targets[0] for place in ours),
            Chain(Unstack(count, form.axis), *[rule.operation] * (rule.operation is not COPY)),
        )
        for rule in layer
    ]


def _layer(config: TransformerConfig, form: Form, half: str) -> list[Rule]:
    """Names inside one layer."""
    rules = []
    for theirs, ours in ATTENTIONS[half].items():
        for name, part in INWARD.items():
            names = f"{theirs}.{name}.kernel", f"{ours}.{part}.weight"
            rules.append(rename(*names, _kernel(config, form, 1)))
        names = f"{theirs}.out.kernel", f"{ours}.fcOut.weight"
        rules.append(rename(*names, _kernel(config, form, 0)))
    for number, name in enumerate(NORMS[half], 1):
        rules.append(rename(f"{name}.scale", f"layerNorm{number}.weight"))
    inner = {"wi_0": "fc1", "wi_1": "fc3"} if form.gated else {"wi": "fc1"}
    for name, part in (inner | {"wo": "fc2"}).items():
        rules.append(rename(f"mlp.{name}.kernel", f"ffn.{part}.weight", TRANSPOSE))
    if form.per_layer:
        ours = ATTENTIONS[half][SELF[half]]
        rules.append(rename(BIAS, f"{ours}.relative_bias.weight", TRANSPOSE))
    return rules


def _kernel(config: TransformerConfig, form: Form, axis: int) -> Operation:
    """A kernel of attention; its heads begin at an axis where they are apart."""
    heads = config.num_heads, config.head_dim
    return Chain(MergeAxes(axis, heads), TRANSPOSE) if form.heads_apart else TRANSPOSE
