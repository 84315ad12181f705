"""What wrappers around a module add to the names of its parameters: taken off, and put back.

DataParallel, DistributedDataParallel and DeepSpeed call the module inside ``module``, torch.compile
``_orig_mod``, FSDP ``_fsdp_wrapped_module``, activation checkpointing
``_checkpoint_wrapped_module``, Fabric ``_forward_module``, PEFT ``base_model.model`` and
``base_layer``; in Lightning and in people's own classes it is an attribute such as ``model``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from convert.checkpoints.layouts import TORCH, Layout
from convert.core.rules import ASIDE, Rule
from convert.core.tensors import Renamed, Tensors

# Of a module that an adapter changes: the adapter is merged or left out, and such names stay plain.
ADAPTED = "base_layer"
# Names that no model has for a part of its own: taken off wherever they stand.
INSIDE = (
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    ADAPTED,
)
# Names that a model may have as well: taken off where every name begins with them.
AROUND = ("module", "base_model.model", "model", "net", "network", "online_model", "ema_model")
# Of norms in files that were made from TensorFlow's; transformers renamed them as it loaded.
OLD_LEAVES = {"gamma": "weight", "beta": "bias"}
# What wrappers keep beside the parameters, which is no weight.
COUNTERS = {
    "n_averaged": "a count of torch's AveragedModel, no weight",
    "initted": "a mark of an averaging wrapper, no weight",
    "step": "a count of an averaging wrapper, no weight",
}
# With the library's own "model." alone the names are those of its class.
LIBRARY_TOPS = ("model.", "lm_head.", "final_logits_bias")


@dataclass(frozen=True)
class Wrapping:
    """Names without what wrappers added -> names as they lie in the file, where they differ.

    ``added`` are the beginnings and the inner parts that were taken off, ``old`` the number of
    norms' weights and biases that have the names of old versions.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    added: Sequence[str] = ()
    old: int = 0

    def notes(self, restored: bool) -> list[str]:
        """What is to be said; ``restored`` where the way back gives the names that came."""
        parts = " and ".join(repr(part) for part in self.added)
        restored = restored and bool(self.lasting)
        back = ", and put back on the way to the same family" if restored else ""
        before = self.added[0].removesuffix(".") if len(self.added) == 1 else ""
        unless = f", unless --key {before} is given" if back and f"{before}." in self.added else ""
        stems = [(s.rpartition(".")[0], n.rpartition(".")[0]) for s, n in self.names.items()]
        count = sum(short != name for short, name in stems)
        told = [f"{self.old} norms' weights and biases are called gamma and beta: read as those"]
        told = [told[0] + back] if self.old else []
        if count:
            back += unless
            told += [f"{count} names have {parts} of a wrapper in them: it is taken off{back}"]
        return told

    @property
    def lasting(self) -> Mapping[str, str]:
        """The names that are put back, which those of a module with an adapter are not."""
        return {} if ADAPTED in self.added else self.names

    def plain(self, name: str) -> str:
        """A weight's name without what was added."""
        return self.short.get(name, name)

    def in_file(self, name: str) -> str:
        """A weight's name with what was added."""
        return self.names.get(name, name)

    @cached_property
    def short(self) -> dict[str, str]:
        return {name: short for short, name in self.names.items()}

    def around(
        self, rules_of: Callable[[Tensors], list[Rule]], tensors: Tensors, layout: Layout
    ) -> list[Rule]:
        """The rules of plain names, from the names as they are in the file."""
        if not self.names:
            return rules_of(tensors)
        view = {translated(name, layout, self.plain): name for name in tensors}
        rules = rules_of(Renamed(tensors, view))
        return [
            replace(r, sources=tuple(translated(n, layout, self.in_file) for n in r.sources))
            for r in rules
        ]

    def put_back(self, rule: Rule) -> Rule:
        """The same rule with targets as they were in the file."""
        if not self.names:
            return rule
        targets = tuple(translated(name, TORCH, self.in_file) for name in rule.targets)
        return replace(rule, targets=targets)


def translated(name: str, layout: Layout, word: Callable[[str], str]) -> str:
    """A weight's name, or that of its moments, in other words; what is kept aside stays."""
    prefixes = (ASIDE, *layout.training, layout.weights)
    prefix = next(prefix for prefix in prefixes if name.startswith(prefix) or not prefix)
    return name if prefix == ASIDE else prefix + word(name.removeprefix(prefix))


def counters(tensors: Tensors) -> dict[str, str]:
    """What lies beside the parameters and is none, name -> reason."""
    single = [name for name, header in tensors.items() if header.shape in ((), (1,))]
    return {name: COUNTERS[name] for name in single if name in COUNTERS}


def unwrap(
    names: Collection[str], settings: Mapping[str, Any] | None, spoken: Collection[str] = ()
) -> Wrapping:
    """What wrappers added to weights' names; nothing where names would then be one.

    ``settings`` are those of the checkpoint's library; a beginning that the user's own names in
    ``spoken`` have as well stays.
    """
    of_library = "model_type" in (settings or {})
    plain = {name: _without_inside(name) for name in names}
    old = [name for name in names if of_library and _is_old(name)]
    plain |= {name: _of_today(plain[name]) for name in old}
    inside = {part for name in names for part in name.split(".")}
    added = [part for part in INSIDE if part in inside]
    around = _around(list(plain.values()), of_library, spoken)
    added += [around] if around else []
    found = {short.removeprefix(around): name for name, short in plain.items()}
    if not (added or old) or len(found) < len(plain):
        return Wrapping()
    names_in_file = {short: name for short, name in found.items() if short != name}
    return Wrapping(names_in_file, added, len(old))


def _is_old(name: str) -> bool:
    stem, _, leaf = name.rpartition(".")
    return leaf in OLD_LEAVES and "norm" in stem.rpartition(".")[2].lower()


def _of_today(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    return f"{stem}.{OLD_LEAVES[leaf]}"


def _without_inside(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in INSIDE)


def _around(names: list[str], of_library: bool, spoken: Collection[str]) -> str:
    """The beginning that all names share and that is a wrapper's, its dots included."""
    taken = ""
    while names:
        first = next((f"{a}." for a in AROUND if all(n.startswith(f"{a}.") for n in names)), "")
        rest = [name.removeprefix(first) for name in names]
        own = first == "model." and of_library
        if not first or any(name.startswith(taken + first) for name in spoken):
            break
        if own and not any(name.startswith(LIBRARY_TOPS) for name in rest):
            break
        taken, names = taken + first, rest
    return taken
