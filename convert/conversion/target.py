"""The files of a converted folder: which container holds which tensors under which names."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from convert.checkpoints.layouts import FLAX, ORBAX, TORCH, TWIN_RULES, Layout, training_rules
from convert.conversion.origin import Export, Origin, export_rules, names_before
from convert.core.rules import ASIDE, rename, reverse
from convert.core.tensors import Tensors
from convert.exports.ctranslate2_model import CTranslate2Model
from convert.exports.ctranslate2_speech import SpeechModel
from convert.families.base import Family
from convert.families.ctranslate2_names import ctranslate2_rules
from convert.families.registry import FAMILIES, family_of_table
from transformer_spec import TransformerConfig, UserError

TWINS: dict[str, dict[str, Layout]] = {
    "torch": {"safetensors": TORCH, "pt": TORCH},
    "flax": {"orbax": ORBAX, "safetensors": FLAX},
}
NAMES = "names:"  # before the file of a table
CTRANSLATE2 = "ctranslate2"
LAYOUTS = TWINS | {CTRANSLATE2: {"model.bin": TORCH}}
SETTINGS = "config.json"


def written_families() -> dict[str, Family]:
    """The families that there are files of to write."""
    return {name: family for name, family in FAMILIES.items() if family.containers}


def targets() -> tuple[str, ...]:
    """Whose names can be written."""
    return (*LAYOUTS, *written_families())


def containers() -> tuple[str, ...]:
    """The file formats that can be written, those of our twins first."""
    theirs = [name for family in written_families().values() for name in family.containers]
    return tuple(dict.fromkeys([*(name for twin in TWINS.values() for name in twin), *theirs]))


def foreign(name: str) -> Family | None:
    """The family of a target, also one that a table makes; None where the target is ours."""
    if name.startswith(NAMES):
        return family_of_table(name.removeprefix(NAMES))
    return written_families().get(name)


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
    model: CTranslate2Model | SpeechModel | None = None

    @property
    def family(self) -> Family | None:
        return foreign(self.name)

    @property
    def layout(self) -> Layout:
        return TORCH if self.family else LAYOUTS[self.name][self.container]


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


def pairs_before(origin: Origin, config: TransformerConfig) -> list[tuple[str, str]]:
    """(theirs, ours) of what is trained; none where the family of before is not to be had."""
    try:
        family = FAMILIES.get(origin.family) or foreign(origin.family)
        return names_before(family, config, origin) if family else []
    except UserError:
        return []
