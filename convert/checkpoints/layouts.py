"""What a folder of weights holds: under which names weights and optimizer moments lie.

Canonical names are the PyTorch twin's; moments carry the prefixes of the torch optimizer file, and
source tensors that the model has no place for are kept under ``aside/``. Where a model has averages
of its weights, those that training goes on from lie under ``raw/``.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from convert.core.rules import ASIDE, Rule, rename
from convert.families.twinformer import flax_rules, torch_rules
from transformer_spec import TransformerConfig, trained_names, weight_shapes

FIRST, SECOND, RAW = "exp_avg/", "exp_avg_sq/", "raw/"
BESIDE = (FIRST, SECOND, RAW, ASIDE)  # what canonical names of no weight of the model start with
COUNT = "count"
# What names of our twins' weights begin with: those of layers no other library's, that of a table
# some others' too, whose encoder has more beside it.
OWN_LAYERS, OWN_TABLE = ("encoder.enc_layers.", "decoder.dec_layers."), "encoder.embedding."
OWN_ENCODER = re.compile(
    r"(?!encoder\.)|encoder\.(embedding|pos_embedding|embedding_norm|final_norm|relative_bias)\."
)


class Layout(NamedTuple):
    """Whose names are used; the prefixes before weights, moments and raw weights; the count."""

    twin: str
    weights: str
    first: str
    second: str
    raw: str
    count: str = COUNT  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def moments(self) -> tuple[str, str]:
        return self.first, self.second

    @property
    def training(self) -> tuple[str, ...]:
        """What is only there for training to go on."""
        return *self.moments, self.raw

    def weight_names(self, names: Collection[str]) -> list[str]:
        """The names of weights, without prefix."""
        others = (*self.training, ASIDE)
        chosen = [n for n in names if n.startswith(self.weights) and not n.startswith(others)]
        return [name.removeprefix(self.weights) for name in chosen]

    def has_moments(self, names: Collection[str]) -> bool:
        return any(name.startswith(self.moments) for name in names)

    def has_raw(self, names: Collection[str]) -> bool:
        return any(name.startswith(self.raw) for name in names)


def has_own_parts(names: Collection[str]) -> bool:
    """Whether names are our twins'."""
    if any(name.startswith(OWN_LAYERS) for name in names):
        return True
    return any(n.startswith(OWN_TABLE) for n in names) and all(map(OWN_ENCODER.match, names))


TORCH = Layout("torch", "", FIRST, SECOND, RAW)
FLAX = Layout("flax", "", "mu/", "nu/", "raw/")
# The state of optax.adamw: a tuple whose first part is Adam's.
ADAM = "opt_state.0."
ORBAX = Layout("flax", "params.", f"{ADAM}mu.", f"{ADAM}nu.", "raw.", f"{ADAM}count")
BARE_ORBAX = Layout("flax", "", "mu.", "nu.", "raw.")

TwinRules = Callable[[TransformerConfig, Collection[str]], list[Rule]]
TWIN_RULES: Mapping[str, TwinRules] = {"torch": torch_rules, "flax": flax_rules}


def canonical_rules(
    layout: Layout,
    config: TransformerConfig,
    names: Collection[str],
) -> list[Rule]:
    """Every rule from the names of a layout to the canonical ones.

    Moments and raw weights have rules where there are any.
    """
    given = layout.weight_names(names)
    weight_rules = TWIN_RULES[layout.twin](config, given)
    rules = [rule.prefixed(layout.weights, "") for rule in weight_rules]
    rules += training_rules(layout, config, layout.has_moments(names), layout.has_raw(names))
    done = {target for rule in rules for target in rule.targets}
    kept = [name for name in names if name.startswith(ASIDE) and name not in done]
    return rules + [rename(name, name) for name in kept]


def training_rules(
    layout: Layout, config: TransformerConfig, moments: bool, raw: bool
) -> list[Rule]:
    """Moments and raw weights go through the same rules as the weights they belong to."""
    trained = set(trained_names(config))
    base = [r for r in TWIN_RULES[layout.twin](config, ()) if trained.issuperset(r.targets)]
    pairs = [*zip(layout.moments, (FIRST, SECOND), strict=True)] if moments else []
    pairs += [(layout.raw, RAW)] if raw else []
    return [rule.prefixed(source, target) for source, target in pairs for rule in base]


def expected_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape, moments and raw weights included."""
    shapes = weight_shapes(config)
    trained = {name: shapes[name] for name in trained_names(config)}
    return shapes | {
        prefix + name: shape for prefix in TORCH.training for name, shape in trained.items()
    }
