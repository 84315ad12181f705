"""One conversion: the source checked, the plan made, the target written aside and renamed."""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from convert.checkpoints import check_tensors
from convert.families import tutorial
from convert.folders import Content, Located, locate, open_content
from convert.formats.atomic import written_aside
from convert.layouts import canonical_rules
from convert.ledger import Hashed, Ledger, plan_lines, write_ledger
from convert.options import given_config
from convert.pipeline import Converted
from convert.rules import Rule
from convert.targets import Target, choose_target, export_rules, write_target
from convert.tensors import Subset, Tensors
from transformer_spec import TransformerConfig, UserError

CARRIED = ("vocabulary", "settings.json")


@dataclass(frozen=True)
class Conversion:
    """Everything decided before the first tensor is read."""

    source: Path
    located: Located
    content: Content
    config: TransformerConfig
    target: Target
    imports: list[Rule]
    exports: list[Rule]
    ledger: Ledger

    @property
    def carries_moments(self) -> bool:
        return self.target.holds_moments and self.content.layout.has_moments(self.content.tensors)


def plan(options: argparse.Namespace) -> Conversion:
    """Check source, config, destination and every tensor's name, shape and type; read no tensor."""
    target = choose_target(options.to, options.container)
    check_destination(options.source, options.dest)
    located = locate(options.source)
    config = given_config(options, located.home)
    content = open_content(located.weights, options.key)
    imports = _import_rules(options.family, content, config)
    check_tensors(content.tensors, imports, config, None, str(located.weights))
    imports, dropped = _leave_out_moments(imports, target, content)
    exports = export_rules(target, config, Converted(content.tensors, imports))
    ledger = Ledger(imports, exports, dropped)
    return Conversion(options.source, located, content, config, target, imports, exports, ledger)


def check_destination(source: Path, dest: Path) -> None:
    """Never in place: a destination that exists or lies inside the source is a UserError."""
    if dest.exists() or dest.is_symlink():
        raise UserError(f"{dest} exists already; name a folder that does not")
    if source.resolve() in dest.resolve().parents:
        raise UserError(f"{dest} is inside {source}, which stays as it is; name a folder elsewhere")


def _import_rules(family: str, content: Content, config: TransformerConfig) -> list[Rule]:
    if family == "tutorial":
        if content.layout.twin != "torch":
            raise UserError(f"{content.tensors.label} has Flax names; the tutorial's are PyTorch's")
        return canonical_rules(content.layout, config, content.tensors, tutorial.import_rules)
    return canonical_rules(content.layout, config, content.tensors)


def _leave_out_moments(
    imports: list[Rule], target: Target, content: Content
) -> tuple[list[Rule], dict[str, str]]:
    """A target without an optimizer drops the moments, and says so in the ledger."""
    if target.holds_moments:
        return imports, {}
    moments = content.layout.moments
    kept = [rule for rule in imports if not rule.sources[0].startswith(moments)]
    gone = [name for name in content.tensors if name.startswith(moments)]
    return kept, dict.fromkeys(gone, f"{target.family} files hold no optimizer state")


def describe(conversion: Conversion) -> list[str]:
    """The plan in text: every source and every target tensor."""
    source = conversion.content.tensors
    canonical = Converted(source, conversion.imports)
    target = Converted(canonical, conversion.exports)
    return [*plan_lines(conversion.ledger, source, target), summary(conversion, "would convert")]


def run(conversion: Conversion, dest: Path) -> str:
    """Convert, one tensor at a time where the containers allow it; returns the summary line."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    size = conversion.content.tensors.size
    with (
        written_aside(dest) as folder,
        tqdm(total=size, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        folder.mkdir()
        source = Hashed(conversion.content.tensors, bar.update)
        _write(conversion, folder, source)
    return summary(conversion, "converted") + f"; every tensor is in {dest / 'conversion.json'}"


def _write(conversion: Conversion, folder: Path, source: Hashed) -> None:
    canonical = Converted(source, conversion.imports)
    target = Hashed(Converted(canonical, conversion.exports))
    count = conversion.content.count if conversion.carries_moments else None
    write_target(folder, conversion.target, target, count)
    source.read_rest()
    conversion.config.save(folder / "config.json")
    _carry(conversion.located.home, folder)
    path = folder / "conversion.json"
    write_ledger(path, _heading(conversion), conversion.ledger, source, target)


def _carry(home: Path | None, folder: Path) -> None:
    """Copy what makes the weights usable, so that a converted run still translates."""
    for part in [home / name for name in CARRIED] if home else []:
        if part.is_dir():
            shutil.copytree(part, folder / part.name)
        elif part.exists():
            shutil.copyfile(part, folder / part.name)


def _heading(conversion: Conversion) -> dict[str, object]:
    content, target = conversion.content, conversion.target
    return {
        "source": str(conversion.source),
        "weights": str(conversion.located.weights),
        "from": {"names": content.layout.twin, "container": content.container},
        "to": {"names": target.family, "container": target.container},
        "optimizer_steps": content.count if conversion.carries_moments else None,
    }


def in_bytes(size: int) -> str:
    """A number of bytes with three digits and its unit."""
    return tqdm.format_sizeof(size, "B")


def summary(conversion: Conversion, verb: str) -> str:
    """One line: what, from where, to what, and whether the optimizer came along."""
    content, target = conversion.content, conversion.target
    moments = _moments(content.tensors, conversion)
    where = conversion.located.weights
    return (
        f"{verb} {conversion.located.kind} {where} ({content.layout.twin} names, "
        f"{content.container}) to {target.family} names in {target.container}: "
        f"{len(content.tensors)} tensors, {in_bytes(content.tensors.size)}; "
        f"{conversion.ledger.counts()}; {moments}"
    )


def _moments(tensors: Tensors, conversion: Conversion) -> str:
    if conversion.carries_moments:
        names = [n for n in tensors if n.startswith(conversion.content.layout.moments)]
        size = in_bytes(Subset(tensors, names).size)
        return f"optimizer moments carried ({conversion.content.count} steps, {size})"
    return "no optimizer moments: the optimizer starts fresh"
