"""The forms that T5X's names have, told by names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from convert.core.tensors import Header
from transformer_spec import Faults, TransformerConfig

HALVES = ("encoder", "decoder")
EMBEDDER = "token_embedder.embedding"
OUTPUT = "logits_dense.kernel"
BIAS = "relpos_bias.rel_embedding"
SELF = {"encoder": "attention", "decoder": "self_attention"}
LAYER = re.compile(r"(encoder|decoder)\.layers_(\d+)\.")
STACKED = {half: f"{half}.{half}." for half in HALVES}
LAYER_AXIS = 1  # of stacked arrays, unless they were trained otherwise
WHERE_AXIS = (
    "the layers' axis of its stacked arrays cannot be told, as there are as many layers as inner "
    "units: give --config with a gin file that says network.T5Config.param_scan_axis"
)
# A part of a name -> what no config of ours can express.
REFUSED = {
    r"q?_?wi_fused|o?_?wo_fused|q_wi_fused": "the feed-forward's matrices are fused",
    r"qkv_fused|kv_fused": "the attention's matrices are fused (qkv_fused, kv_fused)",
    r"router|expert|experts|.*_experts?": "it is a mixture of experts",
    r"side_relpos_bias|T5LayerNorm_\d+": "it is a LongT5, whose encoder attends otherwise",
}


@dataclass(frozen=True)
class Form:
    """How the arrays lie.

    The ``stacked`` halves have one array of all layers, these along ``axis``; kernels of attention
    have an axis for the heads where ``heads_apart``; a table of relative positions is in each layer
    where ``per_layer``; ``own_tables`` are one for each half.
    """

    stacked: frozenset[str] = frozenset()
    axis: int = LAYER_AXIS
    heads_apart: bool = False
    per_layer: bool = False
    own_tables: bool = False
    own_output: bool = False
    gated: bool = False

    @classmethod
    def of(cls, tensors: Mapping[str, Header], axis: int | None = None) -> Form:
        """That of some names; ``axis`` is what is known of the layers'."""
        stacked = frozenset(half for half in HALVES if _starts(tensors, STACKED[half]))
        first = {half: _first(half, half in stacked) for half in HALVES}
        queries = [tensors.get(f"{first[half]}{SELF[half]}.query.kernel") for half in HALVES]
        ranks = {
            len(header.shape) - (half in stacked)
            for half, header in zip(HALVES, queries, strict=True)
            if header is not None
        }
        return cls(
            stacked=stacked,
            axis=_axis(tensors, stacked) if axis is None else axis,
            heads_apart=ranks == {3},
            per_layer=any(_bias_inside(tensors, half) for half in HALVES),
            own_tables=EMBEDDER not in tensors,
            own_output=f"decoder.{OUTPUT}" in tensors,
            gated=any(f"{first[half]}mlp.wi_1.kernel" in tensors for half in HALVES),
        )

    @classmethod
    def usual(cls, config: TransformerConfig) -> Form:
        """That of T5X's own examples: t5, or scalable_t5 with a table in every layer."""
        return cls(
            heads_apart=config.relative_per_layer,
            per_layer=config.relative_per_layer,
            own_tables=config.tied_embeddings in ("none", "target_output"),
            own_output=config.tied_embeddings in ("none", "source_target"),
            gated=config.gated_ffn,
        )

    def first(self, half: str) -> str:
        """What stands before the names of a half's first layer."""
        return _first(half, half in self.stacked)

    def table(self, half: str) -> str:
        return f"{half}.{EMBEDDER}" if self.own_tables else EMBEDDER

    def bias(self, half: str) -> str:
        """The table of relative positions of a half, or of its first layer."""
        return f"{self.first(half) if self.per_layer else f'{half}.'}{BIAS}"

    @property
    def inner(self) -> str:
        """What the kernel that leads into the feed-forward is called."""
        return "wi_0" if self.gated else "wi"


def _first(half: str, stacked: bool) -> str:
    return STACKED[half] if stacked else f"{half}.layers_0."


def _starts(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _bias_inside(tensors: Mapping[str, Header], half: str) -> bool:
    beginnings = (f"{half}.layers_", STACKED[half])
    return any(name.startswith(beginnings) and name.endswith(BIAS) for name in tensors)


def _axis(tensors: Mapping[str, Header], stacked: Collection[str]) -> int:
    """The axis along which layers are stacked, by the two kernels of a feed-forward."""
    axes = {_axis_of(tensors, STACKED[half]) for half in stacked}
    return 0 if axes - {None} == {0} else LAYER_AXIS


def _axis_of(tensors: Mapping[str, Header], prefix: str) -> int | None:
    """That of one half; None where both would do."""
    lengths = _lengths(tensors, prefix)
    if lengths is None or lengths[0] == lengths[1]:
        return None
    return 0 if lengths[1] == lengths[2] else LAYER_AXIS


def _lengths(tensors: Mapping[str, Header], prefix: str) -> tuple[int, int, int] | None:
    """The first two lengths of the kernel that leads out of a feed-forward, and its width F."""
    out = tensors.get(f"{prefix}mlp.wo.kernel")
    into = tensors.get(f"{prefix}mlp.wi.kernel") or tensors.get(f"{prefix}mlp.wi_0.kernel")
    if out is None or into is None or len(out.shape) != 3 or not into.shape:
        return None
    return out.shape[0], out.shape[1], into.shape[-1]


def check_form(tensors: Mapping[str, Header], axis: int | None, faults: Faults) -> None:
    """Add a fault for each part that no config of ours has, and for what names leave open."""
    for pattern, what in REFUSED.items():
        part = re.compile(pattern)
        names = [name for name in tensors if any(map(part.fullmatch, name.split(".")))]
        if names:
            faults.add(f"{what}: {len(names)} arrays such as {names[0]}")
    stacked = [half for half in HALVES if _starts(tensors, STACKED[half])]
    if axis is None and stacked and all(_axis_of(tensors, STACKED[h]) is None for h in stacked):
        lengths = [_lengths(tensors, STACKED[half]) for half in stacked]
        if all(lengths):
            faults.add(WHERE_AXIS)
    for half in HALVES:
        there = _starts(tensors, f"{half}.")
        faults.require(there, f"it has no {half}; read are models with an encoder and a decoder")
    own = [half for half in HALVES if f"{half}.{EMBEDDER}" in tensors]
    if EMBEDDER in tensors and own:
        faults.add(f"it has {EMBEDDER} for both halves, and one of {' and '.join(own)}")
    inside = [half for half in HALVES if _bias_inside(tensors, half)]
    if len(inside) == 1:
        faults.add(f"{inside[0]} layers have a {BIAS} each, and those of the other half have not")


def layers_of(tensors: Mapping[str, Header], form: Form, half: str) -> int:
    """The number of a half's layers; 0 where that cannot be told."""
    if half not in form.stacked:
        numbers = [int(m[2]) for m in map(LAYER.match, tensors) if m and m[1] == half]
        return max(numbers, default=-1) + 1
    header = tensors.get(f"{form.first(half)}mlp.wo.kernel")
    return header.shape[form.axis] if header and len(header.shape) > form.axis else 0
