"""What a folder of weights holds: under which names weights and optimizer moments lie.

Canonical names are the PyTorch twin's; moments carry the prefixes of the torch optimizer file, and
source tensors that the model has no place for are kept under ``aside/``.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from convert.families.twinformer import flax_rules, torch_rules
from convert.rules import ASIDE, Rule, rename
from transformer_spec import TransformerConfig, trained_names, weight_shapes

FIRST, SECOND = "exp_avg/", "exp_avg_sq/"
COUNT = "count"


class Layout(NamedTuple):
    """Whose names are used, and the prefixes before weights and both moments."""

    twin: str
    weights: str
    first: str
    second: str

    @property
    def moments(self) -> tuple[str, str]:
        return self.first, self.second

    def weight_names(self, names: Collection[str]) -> list[str]:
        """The names of weights, without prefix."""
        others = (*self.moments, ASIDE)
        chosen = [n for n in names if n.startswith(self.weights) and not n.startswith(others)]
        return [name.removeprefix(self.weights) for name in chosen]

    def has_moments(self, names: Collection[str]) -> bool:
        return any(name.startswith(self.moments) for name in names)


TORCH = Layout("torch", "", FIRST, SECOND)
FLAX = Layout("flax", "", "mu/", "nu/")
ORBAX = Layout("flax", "params.", "mu.", "nu.")
BARE_ORBAX = Layout("flax", "", "mu.", "nu.")

TwinRules = Callable[[TransformerConfig, Collection[str]], list[Rule]]
TWIN_RULES: Mapping[str, TwinRules] = {"torch": torch_rules, "flax": flax_rules}


def canonical_rules(
    layout: Layout,
    config: TransformerConfig,
    names: Collection[str],
) -> list[Rule]:
    """Every rule from the names of a layout to the canonical ones; moments where there are any."""
    given = layout.weight_names(names)
    weight_rules = TWIN_RULES[layout.twin](config, given)
    rules = [rule.prefixed(layout.weights, "") for rule in weight_rules]
    if layout.has_moments(names):
        rules += moment_rules(layout, config)
    done = {target for rule in rules for target in rule.targets}
    kept = [name for name in names if name.startswith(ASIDE) and name not in done]
    return rules + [rename(name, name) for name in kept]


def moment_rules(layout: Layout, config: TransformerConfig) -> list[Rule]:
    """Moments go through the same rules as the weights they belong to."""
    trained = set(trained_names(config))
    base = [r for r in TWIN_RULES[layout.twin](config, ()) if trained.issuperset(r.targets)]
    pairs = zip(layout.moments, (FIRST, SECOND), strict=True)
    return [rule.prefixed(source, target) for source, target in pairs for rule in base]


def expected_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape, moments included."""
    shapes = weight_shapes(config)
    moments = {name: shapes[name] for name in trained_names(config)}
    first = {FIRST + name: shape for name, shape in moments.items()}
    return shapes | first | {SECOND + name: shape for name, shape in moments.items()}
