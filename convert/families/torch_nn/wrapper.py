"""Where the parts of a module that holds a torch.nn.Transformer lie.

The wrapper map is ours -> theirs: ``transformer`` is the prefix of the nn.Transformer, ``encoder``
and ``decoder`` are the prefixes of an nn.TransformerEncoder and an nn.TransformerDecoder that stand
alone, and the modules in ``USUAL`` are the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from convert.core.tensors import Tensors
from convert.families.base import Source
from transformer_spec import Faults, TransformerConfig, tied_weights, weight_shapes

HALVES = ("encoder", "decoder")
USUAL = {
    "encoder.embedding": "src_emb",
    "encoder.pos_embedding": "src_pos",
    "encoder.embedding_norm": "src_norm",
    "decoder.embedding": "tgt_emb",
    "decoder.pos_embedding": "tgt_pos",
    "decoder.embedding_norm": "tgt_norm",
    "decoder.finalFc": "generator",
}
NEEDED = ("encoder.embedding", "decoder.embedding")
OUTPUT = "decoder.finalFc"
TRANSFORMER = "transformer"

_FIRST_LAYER = re.compile(r"((?:.*\.)?)layers\.0\.linear1\.weight")
_NORM_BIAS = re.compile(r"(layers\.\d+\.norm[123]|norm)\.bias")


@dataclass(frozen=True)
class Layout:
    """Their names: of the stacks the prefix before ``layers.``, of the rest every tensor.

    ``tensors`` holds canonical name -> their name, ``axes`` the position tables (theirs) that have
    an axis of length 1 more, and which it is. ``norm_bias`` is False where LayerNorms have no
    biases; the attention modules in ``separate`` hold q, k and v weights of their own.
    """

    encoder: str
    decoder: str
    tensors: Mapping[str, str]
    norm_bias: bool = True
    separate: frozenset[str] = frozenset()
    axes: Mapping[str, int] = field(default_factory=dict)

    def prefix(self, half: str) -> str:
        return self.encoder if half == "encoder" else self.decoder


def stacks(names: Collection[str]) -> dict[str, list[str]]:
    """Prefixes of the encoder and decoder stacks that the names show."""
    found: dict[str, list[str]] = {half: [] for half in HALVES}
    matches = (_FIRST_LAYER.fullmatch(name) for name in names)
    for prefix in sorted(match[1] for match in matches if match):
        layers = prefix + "layers."
        crossing = any(n.startswith(layers) and ".multihead_attn." in n for n in names)
        found["decoder" if crossing else "encoder"].append(prefix)
    return found


def depth(names: Collection[str], prefix: str) -> int:
    """Layers of a stack: one more than the highest number."""
    pattern = re.compile(re.escape(prefix) + r"layers\.(\d+)\.")
    return max((1 + int(match[1]) for match in map(pattern.match, names) if match), default=0)


def find_layout(
    source: Source,
    faults: Faults,
    tied: Mapping[str, str] | None = None,
    frozen: Collection[str] = (),
) -> Layout:
    """The layout of a source; what cannot be found is a fault that says how to name it.

    Of tables that are ``tied`` (alias -> kept name) one name is enough; an optimizer's moments lack
    the ``frozen`` ones.
    """
    names, given = source.tensors, source.wrapper
    allowed = (TRANSFORMER, *HALVES, *USUAL)
    for ours in sorted(given.keys() - set(allowed)):
        faults.add(f"--map {ours}={given[ours]}: {ours} is not one of {', '.join(allowed)}")
    encoder, decoder = (_find_stack(source, half, faults) for half in HALVES)
    places = {ours: given.get(ours, usual) for ours, usual in USUAL.items()}
    found = {ours: _find_module(names, ours, theirs) for ours, theirs in places.items()}
    tensors = {name: there for module in found.values() for name, there in module.items()}
    for ours, theirs in places.items():
        needed = ours in NEEDED or ours in given and ours != OUTPUT
        needed = needed and f"{ours}.weight" not in frozen
        if needed and not found[ours] and not _is_tied(ours, tensors, tied or {}):
            faults.add(
                f"{ours}: no tensor {theirs}.weight; say where it is with "
                f"--map {ours}=NAME (tables outside the layers: {_tables(source.tensors)})"
            )
    inside = [n.removeprefix(p) for p in (encoder, decoder) for n in names if n.startswith(p)]
    norm_bias = any(_NORM_BIAS.fullmatch(name) for name in inside)
    return Layout(
        encoder, decoder, tensors, norm_bias, _separate(names), _axes(source.tensors, tensors)
    )


def _find_stack(source: Source, half: str, faults: Faults) -> str:
    given, names = source.wrapper, source.tensors
    if half in given or TRANSFORMER in given:
        path = given.get(half) if half in given else f"{given[TRANSFORMER]}.{half}"
        prefix = f"{path}.".lstrip(".")
        faults.require(depth(names, prefix) > 0, f"{half}: no tensor begins with {prefix}layers.")
        return prefix
    found = stacks(names)[half]
    if len(found) != 1:
        which = ", ".join(prefix.rstrip(".") or "(no prefix)" for prefix in found) or "none"
        faults.add(
            f"{half}: {len(found)} stacks of layers are there ({which}), not one; name the "
            f"nn.Transformer with --map transformer=PREFIX, or the stack with --map {half}=PREFIX"
        )
    return found[0] if found else f"{TRANSFORMER}.{half}."


def _find_module(names: Collection[str], ours: str, theirs: str) -> dict[str, str]:
    """Canonical tensor name -> theirs; a table may be a bare parameter without ``.weight``."""
    if theirs in names:
        return {f"{ours}.weight": theirs}
    leaves = {f"{ours}.{leaf}": f"{theirs}.{leaf}" for leaf in ("weight", "bias")}
    return {name: found for name, found in leaves.items() if found in names}


def _is_tied(ours: str, tensors: Collection[str], tied: Mapping[str, str]) -> bool:
    """Whether a table that has no name of its own is there under that of another one."""
    kept = tied.get(f"{ours}.weight", f"{ours}.weight")
    return any(tied.get(name, name) == kept for name in tensors)


def _tables(given: Tensors) -> str:
    """The matrices that could be meant."""
    outside = [name for name in given if "layers." not in name and len(given[name].shape) == 2]
    return ", ".join(f"{name} {list(given[name].shape)}" for name in outside) or "none"


def _separate(names: Collection[str]) -> frozenset[str]:
    marks = (".q_proj_weight", ".k_proj_weight", ".v_proj_weight")
    return frozenset(name.rpartition(".")[0] for name in names if name.endswith(marks))


def _axes(given: Tensors, tensors: Mapping[str, str]) -> dict[str, int]:
    """Position tables of shape (1, L, D) or (L, 1, D): the axis to take away."""
    tables = [theirs for ours, theirs in tensors.items() if ".pos_embedding." in ours]
    shapes = {name: given[name].shape for name in tables}
    return {n: s.index(1) for n, s in shapes.items() if len(s) == 3 and 1 in s[:2]}


def usual_layout(config: TransformerConfig, wrapper: Mapping[str, str]) -> Layout:
    """The layout in which a config is written: the usual names where the wrapper has no others."""
    top = wrapper.get(TRANSFORMER, TRANSFORMER)
    encoder, decoder = (f"{wrapper.get(h, f'{top}.{h}')}.".lstrip(".") for h in HALVES)
    outside = [n for n in (*weight_shapes(config), *tied_weights(config)) if _module(n) in USUAL]
    _check_map(wrapper, [TRANSFORMER, *HALVES, *dict.fromkeys(map(_module, outside))])
    tensors = {}
    for name in outside:
        module, _, leaf = name.rpartition(".")
        tensors[name] = f"{wrapper.get(module, USUAL[module])}.{leaf}"
    return Layout(encoder, decoder, tensors, config.attention_bias or config.ffn_bias)


def _check_map(wrapper: Mapping[str, str], allowed: list[str]) -> None:
    """Every module that is named must be one that the config has; no two in one place."""
    faults = Faults()
    for ours, theirs in wrapper.items():
        faults.require(
            ours in allowed,
            f"{ours}={theirs}: {ours} is no module of this model; there are {', '.join(allowed)}",
        )
        others = [other for other, place in wrapper.items() if place == theirs and other != ours]
        faults.require(not others, f"{ours}={theirs}: {' and '.join(others)} is there too")
    faults.raise_if_any("--map")


def _module(name: str) -> str:
    return name.rpartition(".")[0]
