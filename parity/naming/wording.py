"""A candidate that was found, as a proposed table with what is to be said of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.families.sinusoids import rounding_of
from convert.naming.parsing import kind_of, table_of
from convert.naming.proposal import Proposal, targets_of
from convert.naming.settings import BESIDE
from convert.naming.table import HALVES
from parity.forward.ids import ANYWHERE, BEHIND
from parity.naming.candidates import Candidate, TwinSide
from parity.naming.roles import Roles
from transformer_spec import TransformerConfig, UserError, sinusoid_table
from transformer_spec.config import DECLARATIONS, SINUSOID_FREQUENCIES, SINUSOID_LAYOUTS
from transformer_spec.errors import first_of

FOUND = "found by comparison"
NOT_SHOWN = "no tensor shows it"
LEAVES = {"linear": ("weight", "bias"), "norm": ("weight", "bias"), "embedding": ("weight",)}
# Settings that a table says whatever their values are.
ALWAYS = (
    "norm_position", "activation", "embedding_scale", "norm_epsilon", "pad_id", "num_heads",
    "encoder_positions", "decoder_positions",
)  # fmt: skip
Told = tuple[str, float, int, str, list[str]]


def proposal_of(
    candidate: Candidate,
    roles: Roles,
    twin: TwinSide,
    tensors: Mapping[str, np.ndarray],
    told: Told,
) -> Proposal:
    """The table; ``told`` are the module, seconds, evaluations, where padding may stand, and
    weights that are one in the module alone.
    """
    content = candidate.content(twin.unused)
    config = twin.config(candidate, tensors)
    content = _with_sinusoids(content, roles, config, tensors)
    flags = kept_positions(candidate, content)
    content = _with_idle_sinusoids(content, config, tensors)
    content["config"] = _short(content["config"])
    content = _by_modules(content)
    content = {key: content[key] for key in ORDER if content.get(key)}
    comments = {("config", name): FOUND for name in content["config"]}
    if "max_length" in content["config"]:
        comments["config", "max_length"] = NOT_SHOWN
    for key, value in content["names"].items():
        if any(_was_open(ours) for ours in targets_of(value)):
            comments["names", key] = FOUND
    return Proposal(content, comments=comments, heading=_heading(told, flags))


SINUSOIDS = ("sinusoid_layout", "sinusoid_frequency")
ORDER = ("name", "config", "leaves", "names", "buffers", "unused")


def kept_positions(candidate: Candidate, content: Mapping[str, Any]) -> str:
    """Flags of a conversion that keep stored tables which the table of names calls sinusoids."""
    halves = [half for half in HALVES if candidate.values.get(_kind(half)) == "frozen"]
    declared = [half for half in halves if content["config"][_kind(half)] == "sinusoidal"]
    return " ".join(f"--{half}-positions frozen" for half in declared)


def _was_open(ours: str) -> bool:
    """Whether shapes alone do not tell a module from its neighbours."""
    return "_layers." in ours


def _heading(told: Told, kept: str) -> list[str]:
    module, seconds, evaluations, padding, shared = told
    flag = "" if padding == ANYWHERE else f" --padding {padding}"
    lines = [
        f"The function that {module} computes, in float64: {FOUND},",
        f"{evaluations:,} evaluations in {seconds:.0f} s. The proof of a conversion is",
        f'python -m parity "{module}" CONVERTED{flag}',
    ]
    if padding == BEHIND:
        lines += [
            "The module's decoder sees padding in front of tokens, which a model of this kind does",
            "not: they are the same function where padding stands behind the target's tokens.",
        ]
    if shared:
        lines.append(
            "Each of these is one weight in the module and several here, which train apart:"
        )
        lines += first_of(shared, "weights")
    if kept:
        lines += [
            "The module computes with the rounded sinusoids of its file: convert with",
            f"{kept} to keep these.",
        ]
    return lines


def _with_sinusoids(
    content: dict[str, Any],
    roles: Roles,
    config: TransformerConfig,
    tensors: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """A stored table that holds sinusoids is a buffer, which the config stands for."""
    names, settings = dict(content["names"]), dict(content["config"])
    frozen = {h: text for h, text in roles.positions.items() if settings[_kind(h)] == "frozen"}
    found = {h: _sinusoids(config, tensors[text]) for h, text in frozen.items()}
    known = [one for one in found.values() if one is not None]
    if not known or any(one != known[0] for one in found.values()):
        return content
    settings |= known[0]
    buffers = dict[str, Any]()
    for half, text in frozen.items():
        settings[_kind(half)] = "sinusoidal"
        value = names.pop(text, None) or names.get(text)
        of = [h for h in HALVES if frozen.get(h) == text]
        layout = value["layout"] if isinstance(value, Mapping) else "(rows, width)"
        if value is not None:
            buffers[text] = {"layout": layout, "of": of}
    return {**content, "config": settings, "names": names, "buffers": buffers}


def _with_idle_sinusoids(
    content: dict[str, Any], config: TransformerConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A table that nothing reads, and that holds the sinusoids of the config, is a buffer too."""
    of = [half for half in HALVES if content["config"][_kind(half)] == "sinusoidal"]
    unused, buffers = dict(content["unused"]), dict(content.get("buffers", {}))
    told = {name: content["config"][name] for name in SINUSOIDS}
    for name in [n for n in unused if of and n in tensors]:
        layout = _layout_of_table(tensors[name].shape, config.hidden_dim)
        if layout is not None and _sinusoids(config, tensors[name]) == told:
            del unused[name]
            buffers[name] = {"layout": layout, "of": of}
    return {**content, "unused": unused, "buffers": buffers}


def _layout_of_table(shape: tuple[int, ...], width: int) -> str | None:
    """The layout of (rows, width), with axes of length 1 anywhere."""
    if len([length for length in shape if length != 1]) != 2 or shape[-1] != width:
        return None
    words = ["1" if length == 1 else "rows" for length in shape[:-1]]
    return f"({', '.join([*words, 'width'])})"


def _kind(half: str) -> str:
    return f"{half}_positions"


def _sinusoids(config: TransformerConfig, table: np.ndarray) -> dict[str, str] | None:
    """Which sinusoids a stored table is."""
    flat = table.reshape([length for length in table.shape if length != 1]).astype(np.float64)
    for layout in SINUSOID_LAYOUTS:
        for frequency in SINUSOID_FREQUENCIES:
            try:
                like = dataclasses.replace(
                    config, encoder_positions="sinusoidal", decoder_positions="sinusoidal",
                    sinusoid_layout=layout, sinusoid_frequency=frequency, position_offset=0,
                    max_length=len(flat),
                )  # fmt: skip
            except UserError:
                continue
            expected, allowed = sinusoid_table(like, np.float64), rounding_of(table)
            if expected.shape == flat.shape and float(abs(expected - flat).max()) <= allowed:
                return {"sinusoid_layout": layout, "sinusoid_frequency": frequency}
    return None


def _short(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that have their default."""
    kinds = [settings[_kind(half)] for half in HALVES]
    always = {*ALWAYS, *(SINUSOIDS * ("sinusoidal" in kinds))}
    usual = {"attention_scale": "1/sqrt(A)"}
    return {
        name: value
        for name, value in settings.items()
        if name in always
        or (name not in BESIDE and value != usual.get(name, DECLARATIONS[name].default))
    }


def _by_modules(content: dict[str, Any]) -> dict[str, Any]:
    """The same table with modules in place of their tensors, where leaves have one name."""
    leaves, names = _leaves(content["names"]), dict[str, Any]()
    for theirs, value in content["names"].items():
        ours = targets_of(value)
        module, _, leaf = theirs.rpartition(".")
        kinds = {kind_of(one.rpartition(".")[0]) for one in ours}
        ends = {one.rpartition(".")[2] for one in ours}
        (end, kind) = (ends.pop(), kinds.pop()) if len(ends) == len(kinds) == 1 else ("", "")
        if not module or leaves.get((kind, end)) != leaf:
            names[theirs] = value
            continue
        modules = [one.rpartition(".")[0] for one in ours]
        if end == "weight":
            names[module] = _with_layout(modules, value)
    found = dict[str, dict[str, str]]()
    for (kind, end), leaf in leaves.items():
        if leaf != end:
            found.setdefault(kind, {})[end] = leaf
    shorter = {**content, "names": names, "leaves": found}
    return shorter if _same(content, shorter) else content


def _with_layout(modules: list[str], value: Any) -> Any:
    to = modules[0] if len(modules) == 1 else modules
    if isinstance(value, Mapping) and "layout" in value:
        return {"to": to, "layout": value["layout"]}
    return to


def _leaves(names: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """What most modules of a kind call their weight and bias."""
    found = dict[tuple[str, str], Counter[str]]()
    for theirs, value in names.items():
        for ours in targets_of(value):
            module, _, end = ours.rpartition(".")
            if "." in theirs:
                count = found.setdefault((kind_of(module), end), Counter())
                count[theirs.rpartition(".")[2]] += 1
    return {key: count.most_common(1)[0][0] for key, count in found.items()}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two tables say the same of every tensor that is there."""
    try:
        there, short = (table_of(content, "found") for content in (one, other))
    except UserError:
        return False
    wanted = {(entry.theirs, entry.ours, entry.layout.axes) for entry in there.entries}
    found = {(entry.theirs, entry.ours, entry.layout.axes) for entry in short.entries}
    return wanted <= found
