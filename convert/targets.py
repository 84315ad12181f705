"""The files of a converted folder: which container holds which tensors under which names."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field

from convert.families.base import Family
from convert.families.registry import FAMILIES
from convert.foreign import Origin, export_rules
from convert.layouts import FLAX, ORBAX, TORCH, TWIN_RULES, Layout, moment_rules
from convert.rules import ASIDE, Rule, rename, reverse
from convert.tensors import Tensors
from transformer_spec import TransformerConfig, UserError

TWINS: dict[str, dict[str, Layout]] = {
    "torch": {"safetensors": TORCH, "pt": TORCH},
    "flax": {"orbax": ORBAX, "safetensors": FLAX},
}
FOREIGN = {name: family for name, family in FAMILIES.items() if family.containers}
TARGETS = (*TWINS, *FOREIGN)
CONTAINERS = tuple(
    dict.fromkeys(
        [c for t in TWINS.values() for c in t] + [c for f in FOREIGN.values() for c in f.containers]
    )
)
SETTINGS = "config.json"


@dataclass(frozen=True)
class Target:
    """Whose names, in which container; ``family`` is None for our own twins."""

    name: str
    container: str
    dtype: str | None = None
    shard_size: int | None = None
    wrapper: Mapping[str, str] = field(default_factory=dict)

    @property
    def family(self) -> Family | None:
        return FOREIGN.get(self.name)

    @property
    def layout(self) -> Layout:
        return TORCH if self.family else TWINS[self.name][self.container]


def choose_target(options: argparse.Namespace) -> Target:
    """What the command line asks for: a family's own container unless another is named."""
    name, container = options.to, options.container
    possible = list(TWINS[name]) if name in TWINS else list(FOREIGN[name].containers)
    if container is not None and container not in possible:
        raise UserError(f"--to {name} is written as {' or '.join(possible)}, not {container}")
    container = container or possible[0]
    if options.shard_size and container != "safetensors":
        raise UserError(f"--shard-size cuts safetensors, and {container} is written")
    return Target(name, container, options.dtype, options.shard_size)


def target_rules(
    target: Target, config: TransformerConfig, canonical: Tensors, origin: Origin | None
) -> list[Rule]:
    """Canonical names -> the target's: its import rules reversed."""
    if target.family is not None:
        return export_rules(target.family, config, canonical, origin, target.wrapper)
    layout = target.layout
    rules = [rule.prefixed(layout.weights, "") for rule in TWIN_RULES[layout.twin](config, ())]
    if TORCH.has_moments(canonical):
        rules += moment_rules(layout, config)
    return reverse(rules) + [rename(name, name) for name in canonical if name.startswith(ASIDE)]
