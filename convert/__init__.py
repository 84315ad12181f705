"""Checkpoints from anything to anything. NumPy only: a framework is never imported from here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convert.checkpoints.optimizers.adafactor import (
        OptaxAdafactor,
        adafactor_to_optax,
        adafactor_to_torch,
    )
    from convert.conversion import (
        Average,
        AverageRequest,
        Conversion,
        ConversionRequest,
        Inspection,
        SourceRequest,
        average,
        convert,
        inspect,
    )
    from convert.families.twinformer import flax_to_torch, torch_to_flax

# What lies elsewhere than in convert.conversion.
PLACES: dict[str, str] = {
    "flax_to_torch": "convert.families.twinformer",
    "torch_to_flax": "convert.families.twinformer",
    "OptaxAdafactor": "convert.checkpoints.optimizers.adafactor",
    "adafactor_to_optax": "convert.checkpoints.optimizers.adafactor",
    "adafactor_to_torch": "convert.checkpoints.optimizers.adafactor",
}
__all__ = [
    "Average",
    "AverageRequest",
    "Conversion",
    "ConversionRequest",
    "Inspection",
    "OptaxAdafactor",
    "SourceRequest",
    "adafactor_to_optax",
    "adafactor_to_torch",
    "average",
    "convert",
    "flax_to_torch",
    "inspect",
    "torch_to_flax",
]


def __getattr__(name: str) -> Any:
    """Everything is imported when it is asked for: the twins need the two maps alone."""
    if name in __all__:
        return getattr(import_module(PLACES.get(name, "convert.conversion")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
