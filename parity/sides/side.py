"""One side of a comparison: a model that gives its sub-steps, its loss and its gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parity.forward.ids import Ids
from transformer_spec import TransformerConfig

Weights = dict[str, np.ndarray]
Trace = Mapping[str, np.ndarray]


@dataclass
class Side(ABC):
    """``given`` is what the user typed, ``what`` what it is; weights have canonical names.

    Weights may be read from a file whenever they are asked for. ``streamed`` asks for one module's
    weights in memory at a time.
    """

    given: str
    what: str
    framework: str
    config: TransformerConfig
    weights: Mapping[str, np.ndarray] | None = None
    device: str = "cpu"
    streamed: bool = False
    can_stream: ClassVar[bool] = False
    # Whether features are refused that have not as many frames as there are positions for.
    whole_sources: ClassVar[bool] = False

    @abstractmethod
    def trace(self, ids: Ids, precision: str) -> Trace:
        """Every sub-step that can be seen, logits among them, as float64 arrays (B, K, D).

        Nothing where this side cannot compute in that precision.
        """

    def gradients(self, ids: Ids) -> tuple[float, Weights] | None:
        """Loss per real target token and its gradients by canonical name, in float64.

        None where there is no way to them.
        """
        return None

    def untrained_rows(self) -> dict[str, int]:
        """Tables (canonical names) with a row that never gets a gradient from being looked up."""
        return {}

    def held_bytes(self) -> int:
        """Bytes that are in memory whatever is done about it, and not there yet."""
        return 0

    def stored_bytes(self) -> int:
        """Bytes of the weights as they are stored, where those are still to be read."""
        return getattr(self.weights, "nbytes", 0)

    def read_all(self) -> None:
        """Take all weights into memory."""
        self.weights = None if self.weights is None else dict(self.weights.items())

    @property
    def torch_place(self) -> str:
        """PyTorch's word for the device."""
        return "cuda" if self.device == "gpu" else "cpu"
