"""One conversion: the source checked, the plan made, the target written aside and renamed."""

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes  # noqa: F401 - teaches NumPy the name bfloat16
import numpy as np
from tqdm import tqdm

from convert.exports.ctranslate2_model import CTranslate2Model, prepare
from convert.families.registry import FAMILIES
from convert.foreign import ORIGIN
from convert.formats.atomic import written_aside
from convert.importing import Import, read_import
from convert.ledger import Hashed, Ledger, plan_lines, write_ledger
from convert.named_optimizer import own_groups
from convert.numbers import AsDtype, as_dtype
from convert.optimizer_states import Group
from convert.options import wrapper_of
from convert.pipeline import Converted
from convert.rules import ASIDE, Duplicate, Reversed, Rule, RuleError
from convert.targets import CTRANSLATE2, SETTINGS, Target, choose_target, target_rules
from convert.tensors import Joined, Subset, Tensors
from convert.writing import write_target
from transformer_spec import Faults, UserError

CARRIED = ("vocabulary", "settings.json")


@dataclass(frozen=True)
class Conversion:
    """Everything decided before the first tensor is read."""

    source: Import
    target: Target
    exports: list[Rule]
    ledger: Ledger
    settings: dict | None
    notes: list[str]

    @property
    def count(self) -> int | None:
        """Steps of the optimizer that is carried; None where there is none."""
        carried = self.source.has_moments and self.target.model is None
        return self.source.content.count if carried else None


def plan(options: argparse.Namespace) -> Conversion:
    """Check source, config, destination and every tensor's name, shape and type; read no tensor."""
    target = choose_target(options)
    check_destination(options.source, options.dest)
    source = read_import(options)
    wrapper, model = _target_map(options, source, target), _model(options, source)
    target = replace(target, wrapper=wrapper, model=model)
    canonical = Converted(source.content.tensors, source.rules)
    settings = _settings(target, source)
    export = target_rules(target, source.config, canonical, source.origin)
    if settings and export.gone and target.family:
        settings |= target.family.write_settings(source.config, None)
    dropped = source.dropped | _without_place(source.rules, export.rules, target)
    ledger = Ledger(source.rules, export.rules, dropped)
    notes = [*source.notes, *export.notes, *(model.notes if model else [])]
    return Conversion(source, target, export.rules, ledger, settings, notes)


def _target_map(options: argparse.Namespace, source: Import, target: Target) -> dict[str, str]:
    """--map is about the source where that is a module of the user's, else about the target."""
    wrapper = wrapper_of(options)
    if not wrapper or (source.family and source.family.wrapped):
        return {}
    if target.family is None or not target.family.wrapped:
        wrapped = ", ".join(name for name, family in FAMILIES.items() if family.wrapped)
        raise UserError(
            f"--map names modules around a {wrapped} model; {source.names} and {target.name} have "
            "names of their own"
        )
    return wrapper


def _model(options: argparse.Namespace, source: Import) -> CTranslate2Model | None:
    """What CTranslate2 has to be told, where the target is that."""
    if options.to != CTRANSLATE2:
        return None
    return prepare(source.config, source.located.home, options.quantization or "float32")


def _settings(target: Target, source: Import) -> dict | None:
    """The target's own config file; what it cannot express is a UserError."""
    if target.family is None:
        return None
    origin = source.origin
    original = origin.settings if origin and origin.family == target.name else None
    return target.family.write_settings(source.config, original)


def _without_place(imports: list[Rule], exports: list[Rule], target: Target) -> dict[str, str]:
    """Source names that the target has no tensor for: another family's, or training's alone."""
    used = {name for rule in exports for name in rule.sources}
    left = [rule for rule in imports if rule.targets and used.isdisjoint(rule.targets)]
    dropped = {}
    for rule in left:
        aside = rule.targets[0].startswith(ASIDE)
        what = "kept aside" if aside else "for training alone"
        reason = f"{what}, and {target.name} has no such tensor"
        dropped |= dict.fromkeys(rule.sources, reason)
    return dropped


def check_destination(source: Path, dest: Path) -> None:
    """Never in place: a destination that exists or lies inside the source is a UserError."""
    if dest.exists() or dest.is_symlink():
        raise UserError(f"{dest} exists already; name a folder that does not")
    if source.resolve() in dest.resolve().parents:
        raise UserError(f"{dest} is inside {source}, which stays as it is; name a folder elsewhere")


def describe(conversion: Conversion) -> list[str]:
    """The plan in text: every source and every target tensor."""
    tensors = conversion.source.tensors
    target, _ = _converted(conversion, tensors)
    lines = plan_lines(conversion.ledger, tensors, target)
    return [*lines, *conversion.notes, summary(conversion, "would convert")]


def _converted(conversion: Conversion, tensors: Tensors) -> tuple[Tensors, AsDtype | None]:
    """The target's tensors as views of the source's; those in another number format."""
    target = Converted(Converted(tensors, conversion.source.rules), conversion.exports)
    layout, dtype = conversion.target.layout, conversion.target.dtype
    if dtype is None:
        return target, None
    weights = [layout.weights + name for name in layout.weight_names(target)]
    others = [name for name in target if name not in set(weights)]
    cast = as_dtype(Subset(target, weights), np.dtype(dtype))
    return Joined(target.label, [cast, Subset(target, others)]), cast


def run(conversion: Conversion, dest: Path) -> str:
    """Convert, few tensors at a time where the containers allow it; returns the summary line."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    tensors = conversion.source.tensors
    check_ties(tensors, conversion)
    with (
        written_aside(dest) as folder,
        tqdm(total=tensors.size, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        folder.mkdir()
        source = Hashed(tensors, bar.update)
        warnings = _write(conversion, folder, source)
    lines = [*conversion.notes, *warnings, summary(conversion, "converted")]
    lines[-1] += f"; every tensor is in {dest / 'conversion.json'}"
    model = conversion.target.model
    return "\n".join(lines + ([model.usage(dest)] if model else []))


def check_ties(tensors: Tensors, conversion: Conversion) -> None:
    """Tensors that should be one but differ in a byte are all named in one UserError."""
    faults = Faults()
    for rule in conversion.source.rules:
        operation = rule.operation
        if isinstance(operation, Reversed) and isinstance(operation.operation, Duplicate):
            try:
                operation.forward(*(tensors.read(name) for name in rule.sources))
            except RuleError as error:
                faults.add(f"{', '.join(rule.sources)}: {error}")
    faults.raise_if_any(f"{tensors.label} is not what its config says")


def _write(conversion: Conversion, folder: Path, source: Hashed) -> list[str]:
    converted, cast = _converted(conversion, source)
    target = Hashed(converted, like=source)
    groups = optimizer_groups(conversion)
    write_target(folder, conversion.target, target, conversion.count, groups)
    source.read_rest()
    _write_settings(conversion, folder)
    carry(conversion.source.located.home, folder)
    path = folder / "conversion.json"
    write_ledger(path, _heading(conversion), conversion.ledger, source, target)
    return source.warnings() + (cast.warnings() if cast else [])


def optimizer_groups(conversion: Conversion) -> list[Group]:
    """How torch numbers the target's parameters: known of our own, and of where they came from."""
    source, target = conversion.source, conversion.target
    if target.family is None and target.container == "pt":
        return own_groups(source.config, source.located.home)
    origin = source.origin
    return origin.groups if origin and origin.family == target.name else []


def _write_settings(conversion: Conversion, folder: Path) -> None:
    """config.json in the target's own words; beside ours, where the weights came from."""
    if conversion.target.model is not None:
        return  # CTranslate2 has written its own
    if conversion.settings is None:
        conversion.source.config.save(folder / SETTINGS)
        if conversion.source.origin is not None:
            conversion.source.origin.save(folder / ORIGIN)
    elif conversion.settings:
        text = json.dumps(conversion.settings, indent=2) + "\n"
        (folder / SETTINGS).write_text(text, encoding="utf-8")
    else:
        conversion.source.config.save(folder / SETTINGS)


def carry(home: Path | None, folder: Path) -> None:
    """Copy what makes the weights usable, so that a converted run still translates."""
    for part in [home / name for name in CARRIED] if home else []:
        if part.is_dir():
            shutil.copytree(part, folder / part.name)
        elif part.exists():
            shutil.copyfile(part, folder / part.name)


def _heading(conversion: Conversion) -> dict[str, object]:
    source, target = conversion.source, conversion.target
    return {
        "source": str(source.path),
        "weights": str(source.located.weights),
        "from": {"names": source.names, "container": source.content.container},
        "to": {"names": target.name, "container": target.container} | _stored(target),
        "optimizer_steps": conversion.count,
        "notes": conversion.notes,
    }


def _stored(target: Target) -> dict[str, str]:
    """What became of the numbers after the ledger's fingerprints were taken."""
    return {"quantization": target.model.quantization} if target.model else {}


def in_bytes(size: int) -> str:
    """A number of bytes with three digits and its unit."""
    return tqdm.format_sizeof(size, "B")


def summary(conversion: Conversion, verb: str) -> str:
    """One line: what, from where, to what, and whether the optimizer came along."""
    source, target = conversion.source, conversion.target
    tensors = source.tensors
    return (
        f"{verb} {source.located.kind} {source.located.weights} ({source.names} names, "
        f"{source.content.container}) to {target.name} names in {target.container}: "
        f"{len(tensors)} tensors, {in_bytes(tensors.size)}; "
        f"{conversion.ledger.counts()}; {_moments(tensors, conversion)}"
    )


def _moments(tensors: Tensors, conversion: Conversion) -> str:
    if conversion.target.model is not None:
        return "no optimizer: it only translates"
    if conversion.count is None:
        return "no optimizer moments: the optimizer starts fresh"
    names = [n for n in tensors if n.startswith(conversion.source.content.layout.training)]
    size = in_bytes(Subset(tensors, names).size)
    return f"optimizer moments carried ({conversion.count} steps, {size})"
