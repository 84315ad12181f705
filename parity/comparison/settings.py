"""How two models are to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from parity.forward.ids import ANYWHERE, PADDING
from transformer_spec import Faults, UserError
from transformer_spec.strict import is_whole

# What the words of a setting may be, and how many are needed.
PRECISIONS = ("float32", "bfloat16", "float16", "one-pass-bfloat16")
NAMES: dict[str, tuple[tuple[str | None, ...], int | None]] = {
    "precisions": (PRECISIONS, None),
    "frameworks": (("torch", "jax", None), 2),
    "devices": (("cpu", "gpu", "tpu"), 2),
}


@dataclass(frozen=True)
class Settings:
    """How to compare; the defaults take a minute for a base-size model on two cores.

    All batches are compared in float64, the first one in ``precisions`` as well. ``ids``, ``text``
    and ``features`` are files of token ids, texts or features to compare on, ``audio`` is a
    recording, on whose features front ends are compared as well; without them ids and features are
    generated, up to ``longest`` tokens, with ``padding`` anywhere, or behind their tokens alone.
    ``frameworks`` and ``devices`` are those of A and B, ``max_ram`` is bytes. With ``verify``
    weights that are not what was written into a run or converted folder are a UserError.
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
    verify: bool = True
    padding: str = ANYWHERE
    features: str | None = None
    audio: str | None = None

    def find_faults(self, faults: Faults) -> None:
        """Values that nothing can be compared with."""
        faults.require(is_whole(self.seed, 0), f"seed is {self.seed!r}; the least is 0")
        for name in ("longest", "max_ram"):
            value = getattr(self, name)
            fits = value is None or is_whole(value, 1)
            faults.require(fits, f"{name} is {value!r}; give a whole number of at least 1")
        for name in ("gradients", "explain", "verify"):
            value = getattr(self, name)
            faults.require(isinstance(value, bool), f"{name} is {value!r}; give True or False")
        words = " or ".join(map(repr, PADDING))
        known = self.padding in PADDING
        faults.require(known, f"padding is {self.padding!r}; give {words}")
        given = [name for name in ("text", "ids", "audio") if getattr(self, name) is not None]
        told = f"{' and '.join(given)} are given; give one of them to compare on"
        faults.require(len(given) < 2, told)
        self._find_names(faults)

    def _find_names(self, faults: Faults) -> None:
        """Words that name nothing."""
        for name, (allowed, count) in NAMES.items():
            value = getattr(self, name)
            held = value if isinstance(value, tuple | list) else (value,)
            known = isinstance(value, tuple | list) and all(word in allowed for word in held)
            fits = known and (count is None or len(held) == count)
            number = f"{count}" if count else "a tuple"
            said = ", ".join(map(repr, allowed))
            faults.require(fits, f"{name} is {value!r}; give {number} of {said}")

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
