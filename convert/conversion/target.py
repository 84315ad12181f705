"""The files of a converted folder: which container holds which tensors under which names."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from convert.checkpoints.layouts import FLAX, ORBAX, TORCH, TWIN_RULES, Layout, training_rules
from convert.conversion.origin import Export, Origin, export_rules
from convert.core.rules import ASIDE, rename, reverse
from convert.core.tensors import Tensors
from convert.exports.ctranslate2_model import CTranslate2Model
from convert.exports.ctranslate2_rules import ctranslate2_rules
from convert.exports.ctranslate2_speech import SpeechModel
from convert.families.base import Family
from convert.families.registry import FAMILIES, family_of_table
from transformer_spec import TransformerConfig

TWINS: dict[str, dict[str, Layout]] = {
    "torch": {"safetensors": TORCH, "pt": TORCH},
    "flax": {"orbax": ORBAX, "safetensors": FLAX},
}
FOREIGN = {name: family for name, family in FAMILIES.items() if family.containers}
NAMES = "names:"  # before the file of a table
CTRANSLATE2 = "ctranslate2"
LAYOUTS = TWINS | {CTRANSLATE2: {"model.bin": TORCH}}
TARGETS = (*LAYOUTS, *FOREIGN)
CONTAINERS = tuple(
    dict.fromkeys(
        [c for t in TWINS.values() for c in t] + [c for f in FOREIGN.values() for c in f.containers]
    )
)
SETTINGS = "config.json"


def foreign(name: str) -> Family | None:
    """The family of a target, also one that a table makes; None where the target is ours."""
    if name.startswith(NAMES):
        return family_of_table(name.removeprefix(NAMES))
    return FOREIGN.get(name)


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
