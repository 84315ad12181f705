"""Families whose library saves its tables of sinusoids beside the weights."""

from __future__ import annotations

from convert.core.operations import Given
from convert.core.rules import ASIDE, Rule
from convert.families.base import Source
from convert.families.huggingface.names import (
    PREFIX,
    SINUSOIDS,
    HuggingFace,
    Written,
)
from convert.families.sinusoids import stored_sinusoids
from transformer_spec import TransformerConfig

COMPUTED = "sinusoids, computed from the config"


class StoredSinusoids(HuggingFace):
    """Tables that are there are checked and kept aside; those of our own models are computed."""

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        rules = super().rules(config, source)
        if not isinstance(source, Written):
            return rules
        table = Given(stored_sinusoids(config, self.stored_positions(config))).reversed
        names = [PREFIX + name for name in SINUSOIDS]
        kept = [rule for rule in rules if not any(t.startswith(ASIDE) for t in rule.targets)]
        return kept + [Rule((name,), (), table, COMPUTED) for name in names]

    def stored_positions(self, config: TransformerConfig) -> int:
        """Rows of the library's tables."""
        return config.max_length
