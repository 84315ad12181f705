"""fairseq's transformer (also its BART and mBART), from a checkpoint with its settings.

Names are those under ``checkpoint["model"]``; ``settings`` are ``vars(checkpoint["args"])`` or
``checkpoint["cfg"]["model"]``. Three generations of names are read: layers with numbered norms and
one fused projection, those of today, and those of 0.12 that carry unused copies. Import only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from convert.core.operations import Duplicate, Split
from convert.core.rules import Rule, rename
from convert.families.base import Family, Reading, Source, kept_aside, renamed
from convert.families.fairseq.config import HALVES, reading_of
from convert.families.sinusoids import sinusoid_rule
from transformer_spec import TransformerConfig

LAYERS = {"encoder": "encoder.enc_layers", "decoder": "decoder.dec_layers"}
ATTENTIONS = {
    "encoder": {"self_attn": "multiheadattention"},
    "decoder": {"self_attn": "multiheadattention1", "encoder_attn": "multiheadattention2"},
}
NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
PROJECTIONS = {"q_proj": "fcQ", "k_proj": "fcK", "v_proj": "fcV"}
LEAVES = ("weight", "bias")
SHARED = "one weight under several names"

# Parameters that 0.12 adds to encoder layers for a fast path, and fills from the others at loading.
COPIES = tuple(
    f"{part}_{leaf}" for part in ("in_proj", "out_proj", "fc1", "fc2") for leaf in LEAVES
)
BUFFERS = {
    "version": "fairseq's mark of how the layers end",
    "embed_positions._float_tensor": "a number that fairseq reads the device from",
}
ADVICE = "fairseq computes its table again and never reads this one: --drop {} passes over it"


class Fairseq(Family):
    """``checkpoint_best.pt`` of fairseq 0.6 to 0.12, architectures transformer, bart and mbart."""

    name = "fairseq"
    padding_gradient = False

    def recognizes(self, source: Source) -> bool:
        tables = [f"{half}.embed_tokens.weight" for half in HALVES]
        settings = source.settings or {}
        known = "encoder_embed_dim" in settings or isinstance(settings.get("encoder"), Mapping)
        return known and any(name in source.tensors for name in tables)

    def read_config(self, source: Source) -> Reading:
        """All settings; of the tensors the shapes of tables and the two version marks."""
        return reading_of(source)

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        given = source.tensors
        rules = _tables(config, given)
        for half in HALVES:
            rules += _outside(config, given, half)
            for i in range(getattr(config, f"num_{half}_layers")):
                rules += _layer(given, half, f"{half}.layers.{i}", f"{LAYERS[half]}.{i}")
        return rules


def _tables(config: TransformerConfig, given: Collection[str]) -> list[Rule]:
    """Word tables; a shared one has up to three names, whose bytes must agree."""
    output = "decoder.output_projection.weight"
    if output not in given and "decoder.embed_out" in given:
        output = "decoder.embed_out"
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", output]
    ours = ["encoder.embedding.weight", "decoder.embedding.weight", "decoder.finalFc.weight"]
    kept = {"none": 3, "target_output": 2, "all": 1}[config.tied_embeddings]
    groups = [[name] for name in names[:kept]]
    groups[-1] += names[kept:]
    return [_shared(group, table, given) for group, table in zip(groups, ours, strict=False)]


def _shared(names: list[str], table: str, given: Collection[str]) -> Rule:
    there = [name for name in names if name in given] or names[:1]
    if len(there) == 1:
        return rename(there[0], table)
    return Rule(tuple(there), (table,), Duplicate(len(there)).reversed, SHARED)


def _outside(config: TransformerConfig, given: Collection[str], half: str) -> list[Rule]:
    """Positions, norms before and after the layers, and what has no place."""
    rules = []
    if getattr(config, f"{half}_positions") == "learned":
        rules.append(rename(f"{half}.embed_positions.weight", f"{half}.pos_embedding.weight"))
    if config.embedding_norm:
        rules += _both(f"{half}.layernorm_embedding", f"{half}.embedding_norm")
    if config.final_norm:
        rules += _both(f"{half}.layer_norm", f"{half}.final_norm")
    elif config.norm_position == "pre":
        rules += _aside(given, f"{half}.layer_norm", LEAVES, "not used, by its version or a flag")
    for name, reason in BUFFERS.items():
        rules += _aside(given, half, (name,), reason)
    table = f"{half}.embed_positions.weights"
    if table in given and getattr(config, f"{half}_positions") == "sinusoidal":
        rules.append(sinusoid_rule(table, config, ADVICE.format(table)))
    return rules


def _layer(given: Collection[str], half: str, theirs: str, ours: str) -> list[Rule]:
    rules = []
    for name, attention in ATTENTIONS[half].items():
        rules += _attention(given, f"{theirs}.{name}", f"{ours}.{attention}")
    for number, name in enumerate(NORMS[half]):
        numbered = f"{theirs}.layer_norms.{number}"
        norm = numbered if f"{numbered}.weight" in given else f"{theirs}.{name}"
        rules += _both(norm, f"{ours}.layerNorm{number + 1}")
    for name in ("fc1", "fc2"):
        rules += _both(f"{theirs}.{name}", f"{ours}.ffn.{name}")
    return rules + _aside(given, theirs, COPIES, "a copy that fairseq fills again when it loads")


def _attention(given: Collection[str], theirs: str, ours: str) -> list[Rule]:
    """Three projections, or one whose rows are those of q, k and v."""
    rules = _both(f"{theirs}.out_proj", f"{ours}.fcOut")
    for leaf in LEAVES:
        targets = [f"{ours}.{part}.{leaf}" for part in PROJECTIONS.values()]
        fused = f"{theirs}.in_proj_{leaf}"
        if fused in given:
            rules.append(Rule((fused,), tuple(targets), Split(3)))
        else:
            names = (f"{theirs}.{part}.{leaf}" for part in PROJECTIONS)
            rules += renamed(dict(zip(names, targets, strict=True)))
    return rules


def _both(theirs: str, ours: str) -> list[Rule]:
    return renamed({f"{theirs}.{leaf}": f"{ours}.{leaf}" for leaf in LEAVES})


def _aside(given: Collection[str], prefix: str, names: Collection[str], reason: str) -> list[Rule]:
    there = [f"{prefix}.{name}" for name in names if f"{prefix}.{name}" in given]
    return [kept_aside(name, reason) for name in there]
