"""An adapter merged into the base that is read: the same rules, with products added on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from convert.checkpoints.adapters import (
    Adapter,
    Merged,
    adapter_names,
    attached_names,
    open_adapter,
    what_it_is,
)
from convert.checkpoints.content import Content
from convert.checkpoints.layouts import TORCH, Layout
from convert.checkpoints.states.wrappers import Wrapping, translated
from convert.core.rules import Rule
from convert.core.tensors import Joined, Subset, Tensors
from convert.families.huggingface.names import OUTPUT_TABLE, SHARED, SOURCE_TABLE, TARGET_TABLE
from transformer_spec import Faults, TransformerConfig, UserError, tied_weights

REPLACED = "replaced by the adapter's"
TABLES = (SHARED, SOURCE_TABLE, TARGET_TABLE, OUTPUT_TABLE)
IN_ONE = "is one table in several places, and the adapter changes it in one"


def without_adapter(content: Content, path: Path, asked: bool) -> tuple[Content, Tensors | None]:
    """Content without the tensors of an adapter that is attached to it, and those, if any.

    An adapter alone, and one that is attached and not ``asked`` for, is a UserError.
    """
    names = adapter_names(content.tensors)
    if not names:
        return content, None
    if len(names) == len(content.layout.weight_names(content.tensors)):
        raise UserError(what_it_is(path))
    if not asked:
        raise UserError(
            f"{content.tensors.label} holds {len(names)} tensors of LoRA adapters beside the "
            f"weights ({', '.join(names[:2])}, ...): --merge-adapter FOLDER, with the "
            "adapter_config.json that says their scale, merges them; --drop '*.lora_*' leaves "
            "them out"
        )
    called = attached_names(names)
    if len(called) > 1:
        raise UserError(
            f"{content.tensors.label} has {len(called)} adapters beside the weights "
            f"({', '.join(called)}); leave out all but one, as in --drop '*.{called[-1]}.*'"
        )
    attached = Subset(content.tensors, names)
    rest = [name for name in content.tensors if name not in attached]
    return replace(content, tensors=Subset(content.tensors, rest)), attached


@dataclass(frozen=True)
class Merge:
    """A base with an adapter: all tensors, the rules of the base changed, what is gone, a note."""

    tensors: Tensors
    rules: list[Rule]
    dropped: dict[str, str]
    note: str


def merged(
    folder: Path,
    attached: Tensors | None,
    tensors: Tensors,
    rules: list[Rule],
    config: TransformerConfig,
    wrapping: Wrapping,
    layout: Layout,
) -> Merge:
    """The base's rules with the adapter of a folder merged in; what does not fit is a UserError."""
    if layout is not TORCH:
        raise UserError(f"--merge-adapter is for PyTorch names; {tensors.label} has Flax names")
    adapter = open_adapter(folder, attached)
    base = {translated(name, layout, wrapping.plain): name for name in tensors}
    names = _Names(adapter, base, rules, config, tensors)
    changed = [names.changed(rule) for rule in rules]
    names.faults.raise_if_any(f"the adapter in {folder} does not fit {tensors.label}")
    dropped = {base[name]: REPLACED for name in names.replaced}
    note = f"the adapter in {folder} is merged into {len(adapter.updates)} weights"
    if names.replaced:
        note += f", and {len(names.replaced)} weights are replaced by its own"
    own = Subset(adapter.tensors, [name for name in adapter.tensors if name not in names.same])
    return Merge(Joined(tensors.label, [tensors, own]), changed, dropped, note)


class _Names:
    """What becomes of each rule; what the adapter has and no rule takes is a fault."""

    def __init__(
        self,
        adapter: Adapter,
        base: dict[str, str],
        rules: list[Rule],
        config: TransformerConfig,
        tensors: Tensors,
    ) -> None:
        self.adapter = adapter
        self.tensors = tensors
        self.faults = Faults()
        self.tied = set(tied_weights(config).values())
        known = {name for rule in rules for name in rule.sources}
        found = {self._in(base, name): name for name in adapter.replaced}
        self.same = self._same_tables(base, rules, found)
        replaced = {name: adapter.replaced[own] for name, own in found.items()}
        self.replaced = {name: own for name, own in replaced.items() if own not in self.same}
        self.updates = {}
        for module, update in adapter.updates.items():
            name = self._in(base, f"{module}.weight")
            if name in base and base[name] in known:
                self.updates[base[name]] = update
            elif self.tied and name.endswith(TABLES):
                self.faults.add(f"{name} {IN_ONE}")
            else:
                self.faults.add(f"{module} has no weight {module}.weight", "have no weight")
        for name in self.replaced:
            if name not in base:
                self.faults.add(f"{found[name]} is no weight of it", "are no weights of it")
        self.replaced = {name: own for name, own in self.replaced.items() if name in base}
        self.instead = {base[name]: own for name, own in self.replaced.items()}

    def _same_tables(
        self, base: dict[str, str], rules: list[Rule], found: dict[str, str]
    ) -> list[str]:
        """The adapter's copies of a table of which the model has one for several places.

        PEFT keeps them beside products in them. One with other numbers is a fault: of that table
        PEFT has changed one place. All copies of a base that stores them all may be replaced.
        """
        rule = next((rule for rule in rules if self.tied & set(rule.targets)), None)
        if rule is None:
            return []
        theirs = [
            name
            for name in found
            if base.get(name) in rule.sources or (name not in base and name.endswith(TABLES))
        ]
        all_of_them = {base.get(name) for name in theirs} >= set(rule.sources)
        if not theirs or (len(rule.sources) > 1 and all_of_them):
            return []
        table = self.tensors.read(next(iter(rule.sources)))
        copies = {name: self.adapter.replaced[found[name]] for name in theirs}
        for name, own in copies.items():
            if not np.array_equal(self.adapter.tensors.read(own), table):
                self.faults.add(f"{name} {IN_ONE}")
        return list(copies.values())

    @staticmethod
    def _in(base: dict[str, str], name: str) -> str:
        """A name as the base has it, which may lack the library's ``model.`` or have it more."""
        shorter = name.removeprefix("model.")
        return next((n for n in (name, shorter, f"model.{name}") if n in base), name)

    def changed(self, rule: Rule) -> Rule:
        sources = tuple(self.instead.get(name, name) for name in rule.sources)
        places = {i: self.updates[n] for i, n in enumerate(rule.sources) if n in self.updates}
        if not places:
            return replace(rule, sources=sources)
        if len(rule.sources) > 1 or self.tied & set(rule.targets):
            self.faults.add(f"{', '.join(rule.sources)} {IN_ONE}")
        more = [name for update in places.values() for name in (update.first, update.second)]
        return replace(rule, sources=(*sources, *more), operation=Merged(rule.operation, places))
