"""Rules: arrays of some names become, by an operation, arrays of other names.

A family of checkpoints is a list of rules; the way back is the same list with every rule reversed.
"""

from dataclasses import dataclass, replace

from convert.core.operations import COPY, Operation

# Tensors without a place in our models are kept under this prefix.
ASIDE = "aside/"


@dataclass(frozen=True)
class Rule:
    """Arrays of these names become arrays of those names; ``reason`` is for the ledger."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operation: Operation = COPY
    reason: str = ""

    @property
    def reversed(self) -> "Rule":
        operation = self.operation.reversed
        return replace(self, sources=self.targets, targets=self.sources, operation=operation)

    def prefixed(self, source: str, target: str) -> "Rule":
        """The same rule for names that begin with a prefix on either side."""
        sources = tuple(source + name for name in self.sources)
        return replace(self, sources=sources, targets=tuple(target + name for name in self.targets))


def rename(source: str, target: str, operation: Operation = COPY) -> Rule:
    return Rule((source,), (target,), operation)


def reverse(rules: list[Rule]) -> list[Rule]:
    return [rule.reversed for rule in rules]
