"""One conversion: the plan carried out, the target written aside and renamed, and what was done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches NumPy the name bfloat16
import numpy as np
from tqdm import tqdm

from convert.checkpoints.optimizers.groups import SOURCES, Known
from convert.checkpoints.records import LEDGER
from convert.conversion.origin import ORIGIN
from convert.conversion.plan import Plan, make_plan
from convert.conversion.request import ConversionRequest
from convert.conversion.sources.changed_files import WRITTEN, written_files
from convert.conversion.sources.kept_groups import GROUPS, SETTINGS_KNOWN, as_kept
from convert.conversion.sources.source import DROPPED, Moments
from convert.conversion.target import SETTINGS, Target
from convert.conversion.trained_groups import known_groups
from convert.conversion.writing import write_target
from convert.core.ledger import Hashed, plan_lines, write_ledger
from convert.core.numbers import AsDtype, as_dtype
from convert.core.operations import RuleError
from convert.core.pipeline import Converted
from convert.core.rules import ASIDE, Rule
from convert.core.tensors import Joined, Subset, Tensors, as_bytes
from convert.families.sinusoids import doubtful_tables, dropped_tables
from training_recipe.files.abandoned import remove_abandoned
from training_recipe.files.writing import folder_aside, make_parent
from transformer_spec import Faults
from transformer_spec.errors import refusals_told


@dataclass(frozen=True)
class Names:
    """Whose names tensors have, and in which file format they are."""

    names: str
    container: str


@dataclass(frozen=True)
class Conversion:
    """What a conversion did; after a dry run, what it would do, ``folder`` None and ``plan`` told.

    ``kind`` is what the source is (run, model folder ...), ``counts`` how many target tensors were
    copied, transposed and so on, ``optimizer`` None where an optimizer starts fresh, ``usage``
    code that uses what was written for another library, ``use`` what it does there, and ``files``
    how many files beside the weights were carried, rewritten and left out. ``bytes`` are those of
    the source's tensors, ``written_bytes`` those of the target's where ``dtype`` was asked for.
    """

    source: Path
    kind: str
    folder: Path | None
    given: Names
    written: Names
    tensors: int
    bytes: int
    counts: Mapping[str, int]
    optimizer: Moments | None
    for_translation: bool
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)
    usage: str | None = None
    files: Mapping[str, int] = field(default_factory=dict)
    use: str = "translates"
    written_bytes: int | None = None

    @property
    def ledger(self) -> Path | None:
        """The file that accounts for every tensor."""
        return self.folder / LEDGER if self.folder else None

    @property
    def summary(self) -> str:
        """One line: what, from where, to what, and whether the optimizer came along."""
        verb = "converted" if self.folder else "would convert"
        line = (
            f"{verb} {self.kind} {self.source} ({self.given.names} names, {self.given.container}) "
            f"to {self.written.names} names in {self.written.container}: {self.tensors} tensors, "
            f"{self._sizes()}; {self._counted(self.counts)}; {self._moments()}"
        )
        line += f"; files: {self._counted(self.files)}" if self.files else ""
        return f"{line}; every tensor and file is in {self.ledger}" if self.ledger else line

    @property
    def text(self) -> str:
        """All that is to be said, the plan first and the code last."""
        lines = [*self.plan, *self.notes, *self.warnings, self.summary]
        return "\n".join(lines + ([self.usage] if self.usage else []))

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        paths = {"source": str(self.source), "folder": str(self.folder) if self.folder else None}
        ledger = {"ledger": str(self.ledger) if self.ledger else None}
        return dataclasses.asdict(self) | paths | ledger | {"summary": self.summary}

    def _sizes(self) -> str:
        """How large the tensors are, and what they become in another number format."""
        given, written = in_bytes(self.bytes), in_bytes(self.written_bytes or self.bytes)
        return given if given == written else f"{given}, which become {written}"

    def _counted(self, counts: Mapping[str, int]) -> str:
        return ", ".join(f"{number} {what}" for what, number in counts.items())

    def _moments(self) -> str:
        if self.for_translation:
            return f"no optimizer: it only {self.use}"
        if self.optimizer is None:
            return "no optimizer moments: the optimizer starts fresh"
        steps, size = self.optimizer.steps, in_bytes(self.optimizer.bytes)
        return f"optimizer moments carried ({steps} steps, {size})"


@refusals_told()
def convert(request: ConversionRequest) -> Conversion:
    """Convert a checkpoint into a new folder, which appears whole or not at all.

    Few tensors are in memory at a time where the containers allow it. What is wrong with source,
    config, names or destination is a UserError, all faults of one kind at once.
    """
    plan = make_plan(request)
    if request.dry_run:
        target, _ = _converted(plan, plan.source.tensors)
        lines = plan_lines(plan.ledger, plan.source.tensors, target) + plan.files.lines
        return dataclasses.replace(_done(plan, None, []), plan=lines)
    make_parent(request.destination)
    left = remove_abandoned(request.destination)
    tensors = plan.source.tensors
    check_stated(tensors, plan.source.rules)
    dropped = [name for name, why in plan.source.dropped.items() if why == DROPPED]
    left += dropped_tables(tensors, dropped, plan.source.config)
    left += doubtful_tables(tensors, plan.source.rules)
    check_export_ties(plan)
    with (
        folder_aside(request.destination) as folder,
        tqdm(total=tensors.size, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        warnings = _write(plan, folder, Hashed(tensors, bar.update))
    return _done(plan, request.destination, [*left, *warnings])


def _done(plan: Plan, folder: Path | None, warnings: list[str]) -> Conversion:
    source, target, tensors = plan.source, plan.target, plan.source.tensors
    return Conversion(
        source=source.located.name,
        kind=source.located.kind,
        folder=folder,
        given=Names(source.names, source.content.container),
        written=Names(target.name, target.container),
        tensors=len(tensors),
        bytes=tensors.size,
        counts=plan.ledger.counts(),
        optimizer=Moments.of(source.content) if plan.count is not None else None,
        for_translation=target.model is not None,
        notes=plan.notes,
        warnings=warnings,
        usage=target.model.usage(folder) if target.model and folder else None,
        files=plan.files.counts(),
        use=target.model.use if target.model else "translates",
        written_bytes=_converted(plan, tensors)[0].size if target.dtype else None,
    )


def _converted(plan: Plan, tensors: Tensors) -> tuple[Tensors, AsDtype | None]:
    """The target's tensors as views of the source's; those in another number format."""
    target = Converted(Converted(tensors, plan.source.rules), plan.exports)
    layout, dtype = plan.target.layout, plan.target.dtype
    if dtype is None:
        return target, None
    weights = [layout.weights + name for name in layout.weight_names(target)]
    others = [name for name in target if name not in set(weights)]
    cast = as_dtype(Subset(target, weights), np.dtype(dtype))
    return Joined(target.label, [cast, Subset(target, others)]), cast


def check_stated(tensors: Tensors, rules: list[Rule]) -> None:
    """Tensors that should be one but differ in a byte are all named in one UserError.

    So are tables that are not those which the config stands for.
    """
    faults, tied = Faults(), False
    for rule in rules:
        if not rule.operation.compares:
            continue
        arrays = [tensors.read(name) for name in rule.sources]
        try:
            rule.operation.forward(*arrays)
        except RuleError as error:
            tied = tied or len(arrays) > 1
            faults.add(f"{', '.join(rule.sources)}: {error}{_odd(rule, arrays)}")
    advice = (
        "--drop NAME leaves one out that is not used; where they are weights of their own, the "
        "settings have to say so"
    )
    faults.raise_if_any(f"{tensors.label} is not what its config says", advice=advice * tied)


def check_export_ties(plan: Plan) -> None:
    """Weights of ours that are one in the target, and differ, are all named in one UserError."""
    ours, faults = Converted(plan.source.tensors, plan.source.rules), Faults()
    for rule in plan.exports:
        if not rule.operation.compares or len(rule.sources) < 2:
            continue
        try:
            rule.operation.forward(*(ours.read(name) for name in rule.sources))
        except RuleError as error:
            faults.add(f"{', '.join(rule.sources)}: {error}")
    faults.raise_if_any(
        f"{plan.source.tensors.label} does not fit into {plan.target.name} names",
        advice="what is one weight there was trained apart here, and one cannot hold both; where "
        "these are tables of positions, import with --encoder-positions frozen "
        "--decoder-positions frozen before training",
    )


def check_unread(tensors: Tensors, rules: list[Rule]) -> None:
    """``check_stated`` of tensors that become no weight: whoever reads weights alone reads none."""
    check_stated(tensors, [r for r in rules if all(t.startswith(ASIDE) for t in r.targets)])


def _odd(rule: Rule, arrays: list[np.ndarray]) -> str:
    """Which arrays are not the first one."""
    first = arrays[0]
    odd = [
        name
        for name, array in zip(rule.sources, arrays, strict=True)
        if array.dtype != first.dtype or not np.array_equal(as_bytes(array), as_bytes(first))
    ]
    return f"; {', '.join(odd)} from {rule.sources[0]}" if odd else ""


def _write(plan: Plan, folder: Path, source: Hashed) -> list[str]:
    converted, cast = _converted(plan, source)
    target = Hashed(converted, like=source)
    write_target(folder, plan.target, target, plan.count, plan.groups, plan.step, plan.settings)
    source.read_rest()
    plan.sizes.check()
    plan.files.write(folder)
    _write_settings(plan, folder)
    heading = _heading(plan)
    if plan.target.family is None and plan.target.model is None:
        heading[WRITTEN] = written_files(folder)
        heading |= _groups(plan)
    write_ledger(folder / LEDGER, heading, plan.ledger, source, target)
    return source.warnings() + (cast.warnings() if cast else [])


def _write_settings(plan: Plan, folder: Path) -> None:
    """The settings in the target's own words; beside ours, where the weights came from."""
    family = plan.target.family
    name = family.settings_file if family and plan.settings else SETTINGS
    if plan.target.model is not None or not name or (folder / name).exists():
        return  # it is CTranslate2's own, in the file of the weights, or as it came
    if family is not None and plan.settings:
        (folder / name).write_text(family.settings_text(plan.settings), encoding="utf-8")
        return
    plan.source.config.save(folder / SETTINGS)
    if plan.settings is None and plan.source.origin is not None and not (folder / ORIGIN).exists():
        plan.source.origin.save(folder / ORIGIN)


def _heading(plan: Plan) -> dict[str, object]:
    source, target = plan.source, plan.target
    hub = source.located.hub
    commit = {"repository": hub.id, "revision": hub.revision, "commit": hub.commit} if hub else None
    return {
        "source": str(source.path),
        "weights": str(source.located.weights),
        **({"hub": commit} if commit else {}),
        "from": {"names": source.names, "container": source.content.container},
        "to": {"names": target.name, "container": target.container} | _stored(target),
        "optimizer_steps": plan.count,
        "notes": plan.notes,
        "files": plan.files.to_json(),
    }


def _groups(plan: Plan) -> dict[str, object]:
    """The groups of an optimizer that is carried, which no file of ours holds but optimizer.pt."""
    known = known_groups(plan.source) if plan.count is not None else Known([])
    if not known.sure:
        return {SETTINGS_KNOWN: False}
    return {GROUPS: as_kept(known.groups)} if known.groups and known.whose == SOURCES else {}


def _stored(target: Target) -> dict[str, str]:
    """What became of the numbers after the ledger's fingerprints were taken."""
    return {"quantization": target.model.quantization} if target.model else {}


def in_bytes(size: int) -> str:
    """A number of bytes with three digits and its unit."""
    return tqdm.format_sizeof(size, "B")
