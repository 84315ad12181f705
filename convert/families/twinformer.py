"""The project's own two naming families; the leaf table in ``transformer_spec`` is their source."""

from collections.abc import Collection, Iterable

import numpy as np

from convert.rules import COPY, TRANSPOSE, Duplicate, Operation, Rule, rename
from transformer_spec import (
    TransformerConfig,
    canonical_name,
    flax_name,
    tied_weights,
    to_flax,
    weight_shapes,
)


def torch_rules(config: TransformerConfig, given: Collection[str] = ()) -> list[Rule]:
    """PyTorch twin -> canonical: copies; aliases of tied weights among ``given`` are tied."""
    return [_torch_rule(config, name, given) for name in weight_shapes(config)]


def flax_rules(config: TransformerConfig, given: Collection[str] = ()) -> list[Rule]:
    """Flax twin -> canonical: the leaf table's other side."""
    return [flax_rule(name) for name in weight_shapes(config)]


def flax_rule(name: str) -> Rule:
    """The rule of one canonical name, from the Flax side."""
    return rename(flax_name(name), name, _leaf_operation(name))


def torch_rule_of_flax(name: str) -> Rule:
    """The rule of one Flax name, to the canonical side."""
    return flax_rule(canonical_name(name))


def _torch_rule(config: TransformerConfig, name: str, given: Collection[str]) -> Rule:
    tied = tied_weights(config).items()
    aliases = [alias for alias, kept in tied if kept == name and alias in given]
    if not aliases:
        return rename(name, name)
    return Rule((name, *aliases), (name,), Duplicate(1 + len(aliases)).reversed)


def _leaf_operation(name: str) -> Operation:
    """What the leaf table does to an array, asked on an array of shape (1, 2)."""
    probe = np.empty((1, 2))
    return COPY if to_flax(name, probe)[1].shape == probe.shape else TRANSPOSE


def is_flax(names: Iterable[str]) -> bool:
    """Whether names look like the Flax twin's: more of its leaves than of the PyTorch twin's."""
    leaves = [name.rpartition(".")[2] for name in names]
    flax = sum(leaf in ("kernel", "scale", "embedding") for leaf in leaves)
    return flax > leaves.count("weight")
