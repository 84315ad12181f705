"""Roles and settings as the content of a table, with a comment where it is a guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convert.naming.guessing.parts import Part
from convert.naming.guessing.roles import Role, Roles
from convert.naming.guessing.settings import SELDOM, Setting
from convert.naming.guessing.shapes import IN_OUT, OUT_IN
from convert.naming.guessing.tables import SOURCE, TARGET, is_stored, is_untold
from convert.naming.guessing.words import DECODER, has, is_bias, stem_of
from convert.naming.layouts import BLOCK, ONE, parse_layout
from convert.naming.parsing import KINDS, kind_of
from convert.naming.proposal import GUESS, Group, Proposal
from convert.naming.rendering import Place
from convert.naming.table import HALVES

SHOWN = 3
ORDER = (
    "embedding", "pos_embedding", "relative_bias", "embedding_norm", "multiheadattention",
    "multiheadattention1", "multiheadattention2", "ffn", "layerNorm1", "layerNorm2", "layerNorm3",
    "fcQ", "fcK", "fcV", "fcOut", "fc1", "fc2", "fc3", "final_norm", "finalFc",
)  # fmt: skip
FUSED = {OUT_IN: "(heads parts dim, in)", IN_OUT: "(in, heads parts dim)"}
OTHER_NORM = {
    f"{half}.{one}_norm": f"{half}.{other}_norm"
    for half in HALVES
    for one, other in (("final", "embedding"), ("embedding", "final"))
}
TELLING = re.compile(r"final\w*|last|post|emb\w*")
NORM_WORDS = "which of the two is the weight is a guess"


@dataclass
class Draft:
    """A table in the making."""

    roles: Roles
    settings: Mapping[str, Setting]
    usual: str
    flax: bool
    unused: Sequence[Part]
    leaves: dict[str, tuple[str, str]] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    buffers: dict[str, Any] = field(default_factory=dict)
    layouts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    comments: dict[Place, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_kind = {kind: [r.part for r in self.roles.roles if _kind(r) == kind] for kind in KINDS}
        self.leaves = {kind: _leaves(parts) for kind, parts in by_kind.items()}
        for role in sorted(self.roles.roles, key=lambda role: _rank(role.ours[0])):
            self._write(role)
        for group in self.roles.alike:
            for role in group:
                self._comment(role, [other for other in group if other.part != role.part])
        for role in self.roles.roles:
            if self._spare([role]):
                self._comment(role, [])
            elif is_untold(role):
                other = "pos_embedding" if role.ours[0] in (SOURCE, TARGET) else "embedding"
                key = self.keys[role.part.name]
                self.comments.setdefault(("names", key), f"{GUESS}by order; or {other}")

    def proposal(self, name: str, about: str, containers: Sequence[str]) -> Proposal:
        """The proposal of this draft."""
        content: dict[str, Any] = {"name": name, "about": about, "containers": list(containers)}
        content["config"] = {key: one.value for key, one in self.settings.items()}
        content["leaves"] = self._leaf_section()
        content |= {"names": self.names, "buffers": self.buffers}
        content["unused"] = {part.name: self._dead(part) for part in self.unused}
        for key, one in self.settings.items():
            self._comment_setting(key, one)
        choices = {k: (one.value, *one.others) for k, one in self.settings.items() if one.others}
        choices |= {key: values for key, values in SELDOM.items() if key not in self.settings}
        return Proposal(
            content, tuple(self._groups()), choices, self.layouts, self.comments,
            holes=tuple(self._holes()),
        )  # fmt: skip

    def _write(self, role: Role) -> None:
        """The line of a part: of its module, or of each of its tensors."""
        part, kind = role.part, _kind(role)
        if is_stored(role, self.flax):
            half = role.ours[0].partition(".")[0]
            halves = [half] if len(role.ours) == 1 else [n.partition(".")[0] for n in role.ours]
            self.buffers[part.name] = {"layout": role.layout or "(rows, width)", "of": halves}
            self.keys[role.part.name] = part.name
            return
        apart = sum(other.ours == role.ours for other in self.roles.roles) > 1
        if _is_plain(part, self.leaves[kind]) and not apart:
            self._write_module(role, kind)
            return
        if part.weight is not None:
            self._write_tensor(part.weight, role, "weight", _unless_ours(role.layout))
        if part.bias is not None:
            self._write_tensor(part.bias, role, "bias", _bias_layout(role))

    def _write_module(self, role: Role, kind: str) -> None:
        usual = self.usual if kind == "linear" else None
        value = dict[str, Any]()
        if role.layout and role.layout != (usual or ""):
            value["layout"] = role.layout
        if _is_flat(role):
            value["bias_layout"] = "(heads dim)"
        to = role.ours[0] if len(role.ours) == 1 else list(role.ours)
        self._put(role.part.module, {"to": to, **value} if value else to, role)

    def _write_tensor(self, name: str, role: Role, leaf: str, layout: str | None) -> None:
        ours = [f"{module}.{leaf}" for module in role.ours]
        to = ours[0] if len(ours) == 1 else ours
        self._put(name, {"to": to, "layout": layout} if layout else to, role)

    def _put(self, key: str, value: Any, role: Role) -> None:
        self.names[key] = value
        self.keys.setdefault(role.part.name, key)
        if len(role.ours) > 1 and "parts" in (role.layout or ""):
            order = ", ".join(_tail(name) for name in role.ours)
            self.layouts[key] = (role.layout or "", FUSED[self.usual])
            self.comments["names", key] = (
                f'{GUESS}the parts are {order}, in this order; or laid out "{FUSED[self.usual]}"'
            )

    def _comment(self, role: Role, others: Sequence[Role]) -> None:
        section = "buffers" if role.part.name in self.buffers else "names"
        key = self.keys[role.part.name]
        tails = [_apart(other.ours[0], role.ours[0]) for other in others]
        tails += [_apart(name, role.ours[0]) for name in self._spare([role])]
        more = f" and {len(tails) - SHOWN} more" if len(tails) > SHOWN else ""
        by_order = "by order; " if others else ""
        self.comments[section, key] = f"{GUESS}{by_order}or {', '.join(tails[:SHOWN])}{more}"

    def _spare(self, group: Sequence[Role]) -> tuple[str, ...]:
        """Places of ours that are empty: norms of a half are either kind, and rarely both."""
        given = {name for role in self.roles.roles for name in role.ours}
        found = [OTHER_NORM.get(role.ours[0], "") for role in group]
        empty = all(found) and not any(name in given for name in found)
        telling = any(has(TELLING, role.part.own) for role in group)
        return tuple(found) if empty and not telling else ()

    def _holes(self) -> Iterable[str]:
        """Tensors without a place, and places without a tensor."""
        for part in self.roles.left:
            yield f"{part.name} {list(part.shape)} has no place"
        for name in self.roles.missing:
            yield f"nothing was found for {name}"

    def _comment_setting(self, key: str, one: Setting) -> None:
        if one.others:
            shown = [
                f'"{value}"' if isinstance(value, str) else f"{value!r}" for value in one.others
            ]
            self.comments["config", key] = f"{GUESS}or {', '.join(shown)}"
        elif one.remark:
            self.comments["config", key] = one.remark

    def _leaf_section(self) -> dict[str, dict[str, str]]:
        found = dict[str, dict[str, str]]()
        for kind, (weight, bias) in self.leaves.items():
            leaf = {"weight": weight} if weight != "weight" else {}
            leaf |= {"bias": bias} if bias != "bias" and kind != "embedding" else {}
            if kind == "linear" and self.usual == IN_OUT:
                leaf["layout"] = IN_OUT
            if leaf:
                found[kind] = leaf
            told = is_bias(bias) and not is_bias(weight)
            if kind == "norm" and leaf and not told:
                self.comments["leaves", kind] = f"{GUESS}{NORM_WORDS}"
        return found

    def _dead(self, part: Part) -> dict[str, Any]:
        self.comments["unused", part.name] = f"{GUESS}its numbers change nothing"
        shape = [str(length) for length in part.shape]
        return {"reason": "no weight of the model", "shape": shape}

    def _groups(self) -> Iterable[Group]:
        for told, groups in ((False, self.roles.alike), (True, self.roles.told)):
            singles = [[r] for r in self.roles.roles if not told and self._spare([r])]
            for group in [*groups, *singles]:
                if all(self.keys.get(role.part.name) in self.names for role in group):
                    yield self._group(group, told)

    def _group(self, group: Sequence[Role], told: bool) -> Group:
        keys = tuple(self.keys[role.part.name] for role in group)
        ours = tuple(name for role in group for name in role.ours)
        return Group(keys, ours, told, self._spare(group))


def _kind(role: Role) -> str:
    return kind_of(role.ours[0])


def _leaves(parts: Sequence[Part]) -> tuple[str, str]:
    """What most modules of a kind call their weight and bias."""
    found = list[str]()
    for side, usual in (("weight", "weight"), ("bias", "bias")):
        names = [name for part in parts if (name := getattr(part, side)) and "." in name]
        votes = Counter(name.rpartition(".")[2] for name in names)
        best = max(votes, key=lambda leaf: (votes[leaf], leaf == usual), default=usual)
        enough = votes[best] * 2 >= len(names) and (votes[best] > 1 or not stem_of(best))
        found.append(best if enough else usual)
    return found[0], found[1]


def _is_plain(part: Part, leaves: tuple[str, str]) -> bool:
    """Whether a part is a module whose tensors are called as those of its kind are."""
    names = (f"{part.module}.{leaf}" for leaf in leaves)
    weight, bias = names
    return part.weight == weight and part.bias in (None, bias) and bool(part.module)


def _unless_ours(layout: str | None) -> str | None:
    return layout if layout not in ("", OUT_IN) else None


def _is_flat(role: Role) -> bool:
    """Whether a bias is one row of numbers beside a kernel with its heads apart."""
    bias = role.part.bias_shape
    apart = "heads" in (role.layout or "") and "out" not in (role.layout or "")
    return apart and bias is not None and len(bias) == 1


def _bias_layout(role: Role) -> str | None:
    """What a bias has of its weight's layout, where it is not ours."""
    if not role.layout or role.part.bias_shape is None or _is_flat(role):
        return None
    layout = parse_layout(role.layout)
    if layout.words == [ONE]:
        return role.layout
    if BLOCK in layout.words:
        return f"({BLOCK})"
    output = "heads" in layout.words and "out" in layout.words
    rest = layout.without("in", "1", *(("heads", "dim") if output else ()))
    return None if rest.text == "(out)" else rest.text


def _rank(ours: str) -> tuple[int, ...]:
    """The place of one of our modules in a table."""
    half, *words = ours.split(".")
    return (half == DECODER, *(ORDER.index(word) for word in words if word in ORDER))


def _tail(name: str) -> str:
    return name.rpartition(".")[2]


def _apart(name: str, other: str) -> str:
    """A name from where it differs from another on."""
    words, others = name.split("."), other.split(".")
    same = next(
        (at for at, pair in enumerate(zip(words, others, strict=False)) if len(set(pair)) > 1), 0
    )
    return ".".join(words[same:])
