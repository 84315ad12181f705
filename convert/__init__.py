"""Checkpoints from anything to anything. NumPy only: a framework is never imported from here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

MAPS = ("flax_to_torch", "torch_to_flax")
__all__ = [
    "Average",
    "AverageRequest",
    "Conversion",
    "ConversionRequest",
    "Inspection",
    "SourceRequest",
    "average",
    "convert",
    "flax_to_torch",
    "inspect",
    "torch_to_flax",
]


def __getattr__(name: str) -> Any:
    """Everything is imported when it is asked for: the twins need the two maps alone."""
    if name in __all__:
        place = "convert.families.twinformer" if name in MAPS else "convert.conversion"
        return getattr(import_module(place), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
