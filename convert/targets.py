"""The files of a converted folder: which container holds which tensors under which names."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field

from convert.exports.ctranslate2_model import CTranslate2Model
from convert.exports.ctranslate2_rules import ctranslate2_rules
from convert.families.base import Family
from convert.families.registry import FAMILIES
from convert.foreign import Export, Origin, export_rules
from convert.layouts import FLAX, ORBAX, TORCH, TWIN_RULES, Layout, training_rules
from convert.rules import ASIDE, rename, reverse
from convert.tensors import Tensors
from transformer_spec import TransformerConfig, UserError

TWINS: dict[str, dict[str, Layout]] = {
    "torch": {"safetensors": TORCH, "pt": TORCH},
    "flax": {"orbax": ORBAX, "safetensors": FLAX},
}
FOREIGN = {name: family for name, family in FAMILIES.items() if family.containers}
CTRANSLATE2 = "ctranslate2"
LAYOUTS = TWINS | {CTRANSLATE2: {"model.bin": TORCH}}
TARGETS = (*LAYOUTS, *FOREIGN)
CONTAINERS = tuple(
    dict.fromkeys(
        [c for t in TWINS.values() for c in t] + [c for f in FOREIGN.values() for c in f.containers]
    )
)
SETTINGS = "config.json"


@dataclass(frozen=True)
class Target:
    """Whose names, in which container; ``family`` is None for our own twins.

    ``model`` is what CTranslate2 is told beside the tensors, where they are written for it.
    """

    name: str
    container: str
    dtype: str | None = None
    shard_size: int | None = None
    wrapper: Mapping[str, str] = field(default_factory=dict)
    model: CTranslate2Model | None = None

    @property
    def family(self) -> Family | None:
        return FOREIGN.get(self.name)

    @property
    def layout(self) -> Layout:
        return TORCH if self.family else LAYOUTS[self.name][self.container]


def choose_target(options: argparse.Namespace) -> Target:
    """What the command line asks for: a family's own container unless another is named."""
    name, container = options.to, options.container
    possible = list(LAYOUTS[name]) if name in LAYOUTS else list(FOREIGN[name].containers)
    if container is not None and container not in possible:
        raise UserError(f"--to {name} is written as {' or '.join(possible)}, not {container}")
    container = container or possible[0]
    if options.shard_size and container != "safetensors":
        raise UserError(f"--shard-size cuts safetensors, and {container} is written")
    return Target(name, container, _number_format(options), options.shard_size)


def _number_format(options: argparse.Namespace) -> str | None:
    """What weights are rounded to; CTranslate2 is given float32 and does the rest by itself."""
    if options.to != CTRANSLATE2:
        if options.quantization:
            raise UserError(f"--quantization {options.quantization} needs --to {CTRANSLATE2}")
        return options.dtype
    if options.dtype:
        raise UserError(f"--dtype {options.dtype} is for other targets; give --quantization")
    return "float32"


def target_rules(
    target: Target, config: TransformerConfig, canonical: Tensors, origin: Origin | None
) -> Export:
    """Canonical names -> the target's: its import rules reversed."""
    if target.model is not None:
        return Export(ctranslate2_rules(config))
    if target.family is not None:
        return export_rules(target.family, config, canonical, origin, target.wrapper)
    layout = target.layout
    rules = [rule.prefixed(layout.weights, "") for rule in TWIN_RULES[layout.twin](config, ())]
    rules += training_rules(layout, config, TORCH.has_moments(canonical), TORCH.has_raw(canonical))
    kept = [rename(name, name) for name in canonical if name.startswith(ASIDE)]
    return Export(reverse(rules) + kept)
