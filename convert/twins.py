"""The two twins' weights into each other, in memory."""

from collections.abc import Callable, Mapping

import numpy as np

from convert.families.twinformer import flax_rule, flax_rules, torch_rule_of_flax, torch_rules
from convert.pipeline import Converted, check_source
from convert.rules import Rule, reverse
from convert.tensors import Held
from transformer_spec import Faults, TransformerConfig, UserError, weight_shapes

Weights = Mapping[str, np.ndarray]


def torch_to_flax(
    weights: Weights, config: TransformerConfig | None = None
) -> dict[str, np.ndarray]:
    """Canonical (PyTorch) names and layouts -> Flax ones; transposed arrays are views.

    With a config, missing and extra names and wrong shapes and types are one UserError; without,
    names that match no leaf rule are.
    """
    if config is None:
        return _run(weights, [rule.reversed for rule in _rules_of_names(weights, flax_rule)])
    rules = torch_rules(config, weights.keys())
    _check(weights, rules, config)
    canonical = _run(weights, rules)
    return _run(canonical, reverse(flax_rules(config)))


def flax_to_torch(
    weights: Weights, config: TransformerConfig | None = None
) -> dict[str, np.ndarray]:
    """Flax names and layouts -> canonical (PyTorch) ones: ``torch_to_flax`` reversed."""
    if config is None:
        return _run(weights, _rules_of_names(weights, torch_rule_of_flax))
    rules = flax_rules(config)
    _check(weights, rules, config)
    return _run(weights, rules)


def _rules_of_names(names: Weights, rule_of: Callable[[str], Rule]) -> list[Rule]:
    faults, rules = Faults(), []
    for name in names:
        try:
            rules.append(rule_of(name))
        except UserError as error:
            faults.add(str(error))
    faults.raise_if_any("cannot convert weights")
    return rules


def _check(weights: Weights, rules: list[Rule], config: TransformerConfig) -> None:
    faults = Faults()
    check_source(weights, rules, weight_shapes(config), faults)
    faults.raise_if_any("weights do not fit the config")


def _run(weights: Weights, rules: list[Rule]) -> dict[str, np.ndarray]:
    return Converted(Held(weights), rules).read_all()
