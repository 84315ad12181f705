"""The files of a converted folder: which container holds which tensors under which names."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.checkpoints import FORMATS
from convert.families import tutorial
from convert.folders import KEPT_ASIDE, MODEL, MODEL_PICKLE, OPTIMIZER, ORBAX_FOLDER
from convert.formats.orbax import write_orbax
from convert.formats.safetensors import write_safetensors
from convert.formats.torch_pickle import write_torch_pickle
from convert.layouts import ASIDE, COUNT, FLAX, ORBAX, TORCH, TWIN_RULES, Layout, moment_rules
from convert.rules import Rule, rename, reverse
from convert.tensors import Held, Joined, Subset, Tensors
from transformer_spec import TransformerConfig, UserError

LAYOUTS: dict[tuple[str, str], Layout] = {
    ("torch", "safetensors"): TORCH,
    ("torch", "pt"): TORCH,
    ("flax", "orbax"): ORBAX,
    ("flax", "safetensors"): FLAX,
    ("tutorial", "pt"): TORCH,
    ("tutorial", "safetensors"): TORCH,
}
FAMILIES = tuple(dict.fromkeys(family for family, _ in LAYOUTS))
CONTAINERS = tuple(dict.fromkeys(container for _, container in LAYOUTS))


@dataclass(frozen=True)
class Target:
    """A naming family in a container."""

    family: str
    container: str

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.family, self.container]

    @property
    def holds_moments(self) -> bool:
        return self.family != "tutorial"


def choose_target(family: str, container: str | None) -> Target:
    """The family's own container unless another that can hold it is asked for."""
    possible = [c for f, c in LAYOUTS if f == family]
    if container is not None and container not in possible:
        raise UserError(f"--to {family} is written as {' or '.join(possible)}, not {container}")
    return Target(family, container or possible[0])


def export_rules(target: Target, config: TransformerConfig, canonical: Tensors) -> list[Rule]:
    """Canonical names -> the target's: its family's import rules reversed."""
    if target.family == "tutorial":
        tutorial.check_expressible(config)
        return tutorial.export_rules(config, canonical, canonical["encoder.embedding.weight"].dtype)
    layout = target.layout
    rules = [rule.prefixed(layout.weights, "") for rule in TWIN_RULES[layout.twin](config, ())]
    if TORCH.has_moments(canonical):
        rules += moment_rules(layout, config)
    return reverse(rules) + [rename(name, name) for name in canonical if name.startswith(ASIDE)]


def write_target(folder: Path, target: Target, tensors: Tensors, count: int | None) -> None:
    """Write every tensor of a target into an existing folder."""
    aside = _starting(tensors, (ASIDE,))
    if aside:
        write_safetensors(folder / KEPT_ASIDE, Subset(tensors, aside))
    moments = _starting(tensors, target.layout.moments)
    weights = Subset(tensors, _rest(tensors, [*aside, *moments]))
    if target.container == "orbax":
        _write_orbax(folder, Subset(tensors, _rest(tensors, aside)), count)
        return
    if moments:
        metadata = {COUNT: str(count)}
        write_safetensors(folder / OPTIMIZER, Subset(tensors, moments), metadata)
    if target.container == "pt":
        write_torch_pickle(folder / MODEL_PICKLE, weights)
    else:
        write_safetensors(folder / MODEL, weights, FORMATS[target.layout.twin])


def _write_orbax(folder: Path, tensors: Tensors, count: int | None) -> None:
    if count is not None:
        tensors = Joined(tensors.label, [tensors, Held({COUNT: np.array(count)})])
    write_orbax(folder / ORBAX_FOLDER, tensors)


def _starting(names: Collection[str], prefixes: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.startswith(prefixes)]


def _rest(names: Collection[str], others: list[str]) -> list[str]:
    gone = set(others)
    return [name for name in names if name not in gone]
