"""How two models are to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from transformer_spec import Faults, UserError


@dataclass(frozen=True)
class Settings:
    """How to compare; the defaults take a minute for a base-size model on two cores.

    All batches are compared in float64, the first one in ``precisions`` as well. ``ids`` and
    ``text`` are files of token ids or texts to compare on; without them ids are generated, up to
    ``longest`` tokens. ``frameworks`` and ``devices`` are those of A and B, ``max_ram`` is bytes.
    """

    precisions: tuple[str, ...] = ("float32", "bfloat16")
    gradients: bool = True
    explain: bool = True
    longest: int | None = None
    ids: str | None = None
    seed: int = 0
    frameworks: tuple[str | None, str | None] = (None, None)
    devices: tuple[str, str] = ("cpu", "cpu")
    max_ram: int | None = None
    text: str | None = None

    def find_faults(self, faults: Faults) -> None:
        """Values that nothing can be compared with."""
        faults.require(self.seed >= 0, f"seed {self.seed} is negative; the least is 0")
        shortest = self.longest is None or self.longest >= 1
        faults.require(shortest, f"length {self.longest} is too short; at least 1 is needed")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Settings:
        """Settings as they were written; those of another version are a UserError."""
        lists: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in content.items()
        }
        try:
            return cls(**lists)
        except TypeError as error:
            raise UserError(f"the settings are of another version: {error}") from None
