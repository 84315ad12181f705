"""What every model class of Hugging Face transformers has: a config.json that names it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from convert.families.base import Family, Source
from convert.families.twinformer import is_flax
from transformer_spec import ConfigError, Faults, TransformerConfig


class LibraryClass(Family):
    """One class, its files those of PyTorch."""

    containers = ("safetensors", "pt")
    pickle = "pytorch_model.bin"
    model_type: ClassVar[str]
    architecture: ClassVar[str]

    @property
    def library(self) -> str:
        return self.model_type

    def recognizes(self, source: Source) -> bool:
        return self.is_named(source) and not is_flax(source.tensors)

    def is_named(self, source: Source) -> bool:
        """Whether the settings name this class, by model_type or else by architecture."""
        settings = source.settings or {}
        if settings.get("model_type") is not None:
            return settings["model_type"] == self.model_type
        named = settings.get("architectures") or ()
        return any(str(name).removeprefix("Flax") == self.architecture for name in named)

    def contradiction(self, source: Source) -> str | None:
        """A config.json of another class: the names may fit all the same, the function does not."""
        settings = source.settings or {}
        key = "architectures" if settings.get("model_type") is None else "model_type"
        if not settings.get(key) or self.is_named(source):
            return None
        right = self.model_type if key == "model_type" else [self.architecture]
        return (
            f"its settings say {key} {settings[key]!r}; only where that computes what {self.name} "
            f"does, write {right!r} there"
        )

    def number_format(self, settings: Mapping[str, Any], dtype: str) -> dict[str, Any]:
        """``dtype``, or as transformers 4 called it where the settings have that."""
        there = [key for key in ("dtype", "torch_dtype") if settings.get(key) is not None]
        return dict.fromkeys(there or ["dtype"], dtype)

    def likeness(self, source: Source) -> float:
        """The share of a checkpoint's names, layers' numbers aside, that this class has too.

        Second names of tied tables, and tables of sinusoids, are the class's where they are there.
        """
        rules = self.rules(self.like(), source)
        mine = {self.unnumbered(name) for rule in rules for name in rule.sources}
        theirs = {self.unnumbered(name) for name in source.tensors}
        return len(theirs & mine) / max(1, len(theirs | mine))

    @abstractmethod
    def like(self) -> TransformerConfig:
        """A model of any size, to see which names the class has."""

    def unnumbered(self, name: str) -> str:
        return re.sub(r"\.\d+\.", ".{i}.", name)

    def check(self, config: TransformerConfig, faults: Faults) -> None:
        """What one class cannot do beyond its fields; none by default."""

    def make_config(
        self,
        values: Mapping[str, Any],
        derived: Mapping[str, Any],
        flags: Mapping[str, Any],
        faults: Faults,
    ) -> TransformerConfig | None:
        """The config; flags may give what the file left open, and must agree with the rest."""
        if any(value is None for value in values.values()):
            return None  # a fault already
        free = {name: value for name, value in flags.items() if name in derived}
        try:
            config = TransformerConfig(**{**values, **derived, **free})
        except ConfigError as error:
            faults.take(error)
            return None
        for name, value in flags.items():
            said = getattr(config, name, None)
            faults.require(said == value, f"{name} was given as {value!r}; the file says {said!r}")
        self.check(config, faults)
        return config


def changed_settings(
    original: Mapping[str, Any],
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    second_names: Mapping[str, str],
) -> dict[str, Any]:
    """A config.json with what has changed since it was read; keys of two names have it twice."""
    gone = object()
    changed = {key: value for key, value in now.items() if value != before.get(key, gone)}
    seconds = {s: now[f] for s, f in second_names.items() if s in original and f in changed}
    return dict(original) | changed | seconds


def require_one_of(
    config: TransformerConfig, allowed: Mapping[str, Collection[Any]], name: str, faults: Faults
) -> None:
    """Add a fault for each field that has a value which a family does not have."""
    for field, values in allowed.items():
        given, wanted = getattr(config, field), " or ".join(map(repr, values))
        faults.require(given in values, f"{field} is {given!r}; {name} has {wanted} only")
