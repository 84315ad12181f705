"""Flags that the user gives beside settings that a checkpoint has itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from transformer_spec import Faults


def with_flags(
    told: Mapping[str, Any], flags: Mapping[str, Any], assumed: Collection[str], faults: Faults
) -> dict[str, Any]:
    """Config fields: what a checkpoint tells, then what the user gives.

    A flag may replace a field among ``assumed`` and add one that is not told; one that says
    something else than the checkpoint is a fault.
    """
    for name, value in flags.items():
        if name in told and name not in assumed and value != told[name]:
            faults.add(f"{name} is given as {value!r}; the checkpoint says {told[name]!r}")
    return {**told, **flags}
