"""The project's own two naming families, and the twins' weights into each other in memory.

The leaf table in ``transformer_spec`` is the source of both.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from convert.core.operations import COPY, TRANSPOSE, Duplicate, Operation
from convert.core.pipeline import Converted, check_source
from convert.core.rules import Rule, rename, reverse
from convert.core.tensors import Held
from transformer_spec import (
    Faults,
    TransformerConfig,
    UserError,
    canonical_name,
    flax_name,
    tied_weights,
    to_flax,
    weight_shapes,
)
from transformer_spec.strict import add_no_array, is_described

Weights = Mapping[str, np.ndarray]


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


def torch_to_flax(
    weights: Weights, config: TransformerConfig | None = None
) -> dict[str, np.ndarray]:
    """Canonical (PyTorch) names and layouts -> Flax ones; transposed arrays are views.

    With a config, missing and extra names and wrong shapes and types are one UserError; without,
    names that match no leaf rule are. So are weights that are no NumPy arrays.
    """
    _check_arrays(weights)
    if config is None:
        return _run(weights, rules_to_flax(weights))
    rules = torch_rules(config, weights.keys())
    _check(weights, rules, config)
    canonical = _run(weights, rules)
    return _run(canonical, reverse(flax_rules(config)))


def flax_to_torch(
    weights: Weights, config: TransformerConfig | None = None
) -> dict[str, np.ndarray]:
    """Flax names and layouts -> canonical (PyTorch) ones: ``torch_to_flax`` reversed."""
    _check_arrays(weights)
    if config is None:
        return _run(weights, _rules_of_names(weights, torch_rule_of_flax))
    rules = flax_rules(config)
    _check(weights, rules, config)
    return _run(weights, rules)


def rules_to_flax(names: Collection[str]) -> list[Rule]:
    """Canonical names -> Flax ones, each by its leaf; those that match none are one UserError."""
    return [rule.reversed for rule in _rules_of_names(names, flax_rule)]


def _rules_of_names(names: Collection[str], rule_of: Callable[[str], Rule]) -> list[Rule]:
    faults, rules = Faults(), []
    for name in names:
        try:
            rules.append(rule_of(name))
        except UserError as error:
            faults.take(error)
    faults.raise_if_any("cannot convert weights")
    return rules


def _check(weights: Weights, rules: list[Rule], config: TransformerConfig) -> None:
    faults = Faults()
    check_source(weights, rules, weight_shapes(config), faults)
    faults.raise_if_any("weights do not fit the config")


def _check_arrays(weights: Weights) -> None:
    faults = Faults()
    for name, array in weights.items():
        if not is_described(array):
            add_no_array(name, array, faults)
    faults.raise_if_any("cannot convert weights")


def _run(weights: Weights, rules: list[Rule]) -> dict[str, np.ndarray]:
    return Converted(Held(weights), rules).read_all()
