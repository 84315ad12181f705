"""Tables of names from TOML, which docs/your-own-model.md shows; all faults are found at once.

Where one module comes in several forms, ``[[variants]]`` say what each of them adds to the rest.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from convert.naming.layouts import PARTS, Layout, layout_fault, parse_layout, usual_layout
from convert.naming.settings import EXPRESSION
from convert.naming.table import HALVES, LAYER, Buffer, Entry, Leaf, NamingTable, Unused
from transformer_spec import Faults, TransformerConfig, UserError
from transformer_spec.config import DECLARATIONS
from transformer_spec.declarations import Declaration, range_fault, read_value
from transformer_spec.errors import closest, printable_name
from transformer_spec.inventory import all_weight_shapes

MERGED = ("config", "leaves", "names", "buffers", "unused")  # what a variant may add to
SECTIONS = ("name", "about", "note", "containers", *MERGED, "variants")
CONTAINERS = ("pt", "safetensors", "msgpack", "orbax")
KINDS = ("linear", "norm", "embedding")
LEAF_KEYS = ("weight", "bias", "layout")
ENTRY_KEYS = ("to", "layout", "bias_layout")
UNUSED_KEYS, BUFFER_KEYS = ("reason", "shape"), ("layout", "of")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def read_table(path: Path) -> NamingTable:
    """The table of a file; what cannot be read or is wrong is one UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UserError(f"{path} is no readable table of names: {reason}") from None
    return parse_table(text, str(path))


def parse_table(text: str, label: str) -> NamingTable:
    """The table of a TOML text; ``label`` is where it is from."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{label} is no TOML: {error}") from None
    return table_of(content, label)


def table_of(content: Mapping[str, Any], label: str) -> NamingTable:
    """The table of what a TOML text says, as plain data."""
    readers = [_Reader(form, label) for form in _forms(content)]
    forms = [reader.table() for reader in readers]
    faults = Faults()
    for message in dict.fromkeys(m for reader in readers for m in reader.faults.messages):
        faults.add(message)
    advice = f"a table has {', '.join(SECTIONS)}; docs/your-own-model.md shows one"
    faults.raise_if_any(f"{label} is no table of names", advice=advice)
    return replace(forms[0], variants=tuple(forms[1:]))


def _forms(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The content with what each variant adds; as it is where there are none, or no such list."""
    variants = content.get("variants")
    if not (isinstance(variants, list) and variants and all(map(_is_variant, variants))):
        return [content]
    rest = {key: value for key, value in content.items() if key != "variants"}
    return [rest | {key: _joined(rest.get(key), variant[key]) for key in variant}
            for variant in variants]  # fmt: skip


def _is_variant(value: Any) -> bool:
    return isinstance(value, Mapping) and all(key in MERGED for key in value)


def _joined(common: Any, own: Any) -> Any:
    return {**common, **own} if isinstance(common, Mapping) and isinstance(own, Mapping) else own


class _Reader:
    """Reads the content of a table, and collects every fault of it."""

    def __init__(self, content: Mapping[str, Any], label: str) -> None:
        self.content, self.label, self.faults = content, label, Faults()

    def table(self) -> NamingTable:
        for key in self.content.keys() - set(SECTIONS):
            self.faults.add(f"{printable_name(key)} is no section{closest(key, SECTIONS)}")
        if "variants" in self.content:
            told = f"a list of tables, [[variants]], of {', '.join(MERGED)} each"
            self.faults.add(f"variants is {self.content['variants']!r}; it is {told}")
        leaves = self._leaves()
        result = NamingTable(
            self._name(), self.label, str(self.content.get("about", "")), self._containers(),
            self._config(), tuple(self._entries(leaves)), self._buffers(), tuple(self._unused()),
            note=self._note(),
        )  # fmt: skip
        self._check_names(result)
        return result

    def _section(self, key: str) -> Mapping[str, Any]:
        found = self.content.get(key, {})
        if isinstance(found, Mapping):
            return found
        self.faults.add(f"{key} is {found!r}; it is a section, [{key}]")
        return {}

    def _name(self) -> str:
        name = self.content.get("name")
        usable = isinstance(name, str) and NAME.fullmatch(name)
        told = f"name is {name!r}; give a short one of small letters, digits, '-', '_', '.'"
        self.faults.require(bool(usable), told)
        return str(name)

    def _note(self) -> str:
        note = self.content.get("note", "")
        self.faults.require(isinstance(note, str), f"note is {note!r}; give a text")
        return printable_name(note)

    def _containers(self) -> tuple[str, ...]:
        given = self.content.get("containers", ["pt", "safetensors"])
        usable = isinstance(given, list) and given and all(c in CONTAINERS for c in given)
        allowed = f"give a list of {', '.join(CONTAINERS)}"
        self.faults.require(bool(usable), f"containers is {given!r}; {allowed}")
        return tuple(given) if usable else ("pt",)

    def _config(self) -> dict[str, Any]:
        found = dict[str, Any]()
        for key, value in self._section("config").items():
            declared = DECLARATIONS.get(key)
            if declared is None:
                near = closest(key, DECLARATIONS)
                self.faults.add(f"config.{printable_name(key)} is no setting of a model{near}")
            elif isinstance(value, str) and declared.type is float:
                known = EXPRESSION.fullmatch(value.replace(" ", ""))
                told = f"config.{key} is {value!r}; write a number, or one such as 'sqrt(D)'"
                self.faults.require(known is not None, f"{told}, '1/sqrt(A)', 'float32(sqrt(D))'")
            else:
                self._check_setting(declared, value)
            found[key] = value
        return found

    def _check_setting(self, declared: Declaration, value: Any) -> None:
        try:
            fault = range_fault(declared, read_value(declared, value))
        except ValueError as error:
            fault = str(error)
        self.faults.require(fault is None, f"config.{declared.name}: {fault}")

    def _leaves(self) -> dict[str, Leaf]:
        given = self._section("leaves")
        for key in given.keys() - set(KINDS):
            near = closest(key, KINDS)
            self.faults.add(f"leaves.{printable_name(key)} is no kind of module{near}")
        return {kind: self._leaf(f"leaves.{kind}", given.get(kind, {})) for kind in KINDS}

    def _leaf(self, where: str, given: Any) -> Leaf:
        values = self._record(where, given, LEAF_KEYS)
        for key in [key for key in values if not isinstance(values[key], str)]:
            self.faults.add(f"{where}.{key} is {values.pop(key)!r}; give a text")
        layout = self._layout(where, values["layout"]) if "layout" in values else None
        return Leaf(values.get("weight", "weight"), values.get("bias", "bias"), layout)

    def _record(self, where: str, given: Any, keys: tuple[str, ...]) -> dict[str, Any]:
        """A table of texts under some keys."""
        if not isinstance(given, Mapping):
            self.faults.add(f"{where} is {given!r}; it is a table of {', '.join(keys)}")
            return {}
        for key in given.keys() - set(keys):
            self.faults.add(f"{where}.{printable_name(key)} is not known{closest(key, keys)}")
        return {key: value for key, value in given.items() if key in keys}

    def _layout(self, where: str, text: Any) -> Layout | None:
        try:
            return parse_layout(str(text))
        except UserError as error:
            self.faults.add(f"{where}: {error}")
            return None

    def _entries(self, leaves: Mapping[str, Leaf]) -> Iterator[Entry]:
        given = self._section("names")
        self.faults.require(bool(given), "names is empty; it says theirs = ours")
        for theirs, value in given.items():
            if isinstance(value, Mapping):
                values = self._record(_at("names", theirs), value, ENTRY_KEYS)
            else:
                values = {"to": value}
            targets = values.get("to")
            targets = [targets] if isinstance(targets, str) else targets
            if not isinstance(targets, list) or not targets or not _are_texts(targets):
                self.faults.add(
                    f"{_at('names', theirs)} is {value!r}; give a name of ours, or a list"
                )
                continue
            layouts = {
                key: self._layout(f"{_at('names', theirs)}.{key}", values[key])
                for key in ("layout", "bias_layout")
                if key in values
            }
            yield from self._expanded(theirs, tuple(targets), layouts, leaves)

    def _expanded(
        self,
        theirs: str,
        ours: tuple[str, ...],
        layouts: Mapping[str, Layout | None],
        leaves: Mapping[str, Leaf],
    ) -> Iterator[Entry]:
        """A module as its tensors; what is a tensor already as it is."""
        if not self._are_ours(theirs, ours):
            return
        given = layouts.get("layout")
        if ours[0] in tensors():
            yield from self._entry(theirs, ours, given)
            return
        leaf = leaves[kind_of(ours[0])]
        weights, biases = ([f"{name}.{end}" for name in ours] for end in ("weight", "bias"))
        shape = given or leaf.layout
        yield from self._entry(f"{theirs}.{leaf.weight}", tuple(weights), shape)
        if set(biases) <= tensors():
            own = layouts.get("bias_layout") or (shape and _of_bias(shape, ours[0]))
            yield from self._entry(f"{theirs}.{leaf.bias}", tuple(biases), own, True)

    def _are_ours(self, theirs: str, ours: tuple[str, ...]) -> bool:
        """Whether all names are known, all modules or all tensors, of layers where theirs are."""
        known = tensors() | modules()
        layered = bool(LAYER.search(theirs))
        before = len(self.faults.messages)
        for name in ours:
            if name not in known:
                near = closest(name, known)
                self.faults.add(
                    f"{_at('names', theirs)}: {printable_name(name)} is no name of ours{near}"
                )
            elif ("{i}" in name) != layered:
                where = "theirs has" if layered else "ours has"
                self.faults.add(f"{_at('names', theirs)}: {where} a layer {{i}} and {name} has not")
        if len({name in tensors() for name in ours}) > 1:
            self.faults.add(f"{_at('names', theirs)}: {', '.join(ours)} are modules and tensors")
        return len(self.faults.messages) == before

    def _entry(
        self, theirs: str, ours: tuple[str, ...], layout: Layout | None, optional: bool = False
    ) -> Iterator[Entry]:
        layout = layout or usual_layout(ours[0])
        for name in ours:
            fault = layout_fault(layout, name, len(ours))
            if fault:
                self.faults.add(f"{_at('names', theirs)}: {fault}")
                return
        yield Entry(theirs, ours, layout, optional)

    def _buffers(self) -> dict[str, Buffer]:
        found = dict[str, Buffer]()
        for name, value in self._section("buffers").items():
            record = {"layout": value} if isinstance(value, str) else value
            values = self._record(_at("buffers", name), record, BUFFER_KEYS)
            layout = self._layout(_at("buffers", name), values.get("layout", "(rows, width)"))
            halves = values.get("of", list(HALVES))
            if layout is not None and sorted(layout.words) != ["rows", "width"]:
                told = f"{layout.text} is no table of positions, (rows, width)"
                self.faults.add(f"{_at('buffers', name)}: {told}")
            elif not (_are_texts(halves) and halves and set(halves) <= set(HALVES)):
                told = f"of is {halves!r}; give a list of {' and '.join(HALVES)}"
                self.faults.add(f"{_at('buffers', name)}: {told}")
            elif layout is not None:
                found[name] = Buffer(layout, tuple(halves))
        return found

    def _unused(self) -> Iterator[Unused]:
        for name, value in self._section("unused").items():
            record = {"reason": value} if isinstance(value, str) else value
            values = self._record(_at("unused", name), record, UNUSED_KEYS)
            reason, shape = values.get("reason"), values.get("shape")
            if shape and _are_texts(shape) and not all(map(_is_size, shape)):
                told = "lengths are numbers and sizes of the config such as 'hidden_dim'"
                self.faults.add(f"{_at('unused', name)}: shape is {shape!r}; {told}")
                continue
            if not isinstance(reason, str) or not (shape is None or _are_texts(shape)):
                self.faults.add(
                    f"{_at('unused', name)} is {value!r}; say why it changes nothing, or "
                    "reason and shape, a list such as ['max_length', 'hidden_dim']"
                )
                continue
            yield Unused(name, reason, tuple(shape) if shape is not None else None)

    def _check_names(self, table: NamingTable) -> None:
        """No tensor of either side in two places; of ours but for tables that may be tied."""
        theirs = [entry.theirs for entry in table.entries]
        theirs += [*table.buffers, *(unused.theirs for unused in table.unused)]
        for name in sorted({name for name in theirs if theirs.count(name) > 1}):
            self.faults.add(f"{name} has two places in the table")
        ours = [name for entry in table.entries for name in entry.ours]
        for name in sorted({name for name in ours if ours.count(name) > 1}):
            from_them = [
                printable_name(e.theirs) for e in table.entries for o in e.ours if o == name
            ]
            self.faults.add(f"{name} is given by {' and by '.join(from_them)}")


def _at(section: str, name: str) -> str:
    """Where in a table a name stands."""
    return f"{section}.{printable_name(name)}"


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _is_size(text: str) -> bool:
    declared = DECLARATIONS.get(text)
    return text.isdecimal() or (declared is not None and declared.type is int)


def _of_bias(layout: Layout, ours: str) -> Layout | None:
    """What a weight's layout says of its bias: the axes that are not summed over."""
    output = ours.endswith(".fcOut")
    gone = ("in", "heads", "dim") if output else ("in",)
    left = layout.without(*gone)
    if layout.words == ["block", "block"]:
        return parse_layout("(block)")
    return left if left.axes and left.words != [PARTS] else None


def kind_of(module: str) -> str:
    """What kind of module one of ours is."""
    last = module.rpartition(".")[2]
    if last.endswith("embedding") or last == "relative_bias":
        return "embedding"
    return "linear" if last.startswith(("fc", "finalFc")) else "norm"


@cache
def tensors() -> frozenset[str]:
    """Every canonical name that a config can have, with {i} for its layer."""
    found = set[str]()
    for positions in ("learned", "relative"):
        for per_layer in (False, True):
            config = TransformerConfig(
                8, 8, 4, 4, 1, 1, 1, 4, encoder_positions=positions, decoder_positions=positions,
                final_norm=True, embedding_norm=True, gated_ffn=True, relative_per_layer=per_layer,
            )  # fmt: skip
            found |= {re.sub(r"_layers\.0\.", "_layers.{i}.", n) for n in all_weight_shapes(config)}
    return frozenset(found)


@cache
def modules() -> frozenset[str]:
    """The modules of ``tensors``."""
    return frozenset(name.rpartition(".")[0] for name in tensors())
