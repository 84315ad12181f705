"""The Flax twins of Marian, BART, mBART, Pegasus and the Blenderbots, of transformers 4.

Their file is ``flax_model.msgpack``.

Nested names are joined by dots. The paths are the PyTorch names; the leaves, and what is
transposed, come from the leaf table. Both halves always have one table, ``model.shared``: there are
no separate vocabularies, and an untied model holds ``lm_head`` beside it. ``final_logits_bias`` is
a parameter here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from convert.core.operations import COPY, TRANSPOSE
from convert.core.pipeline import Converted
from convert.core.rules import ASIDE, Rule, rename
from convert.core.tensors import Held
from convert.families.base import Family, Reading, Source
from convert.families.huggingface.bart import Bart, MBart
from convert.families.huggingface.blenderbot import Blenderbot, BlenderbotSmall
from convert.families.huggingface.marian import SHARE, Marian
from convert.families.huggingface.names import (
    OUTPUT_TABLE,
    PREFIX,
    SHARED,
    SOURCE_TABLE,
    TARGET_TABLE,
    HuggingFace,
    headers_only,
)
from convert.families.huggingface.pegasus import Pegasus
from convert.families.huggingface.settings import OUTPUT_BIAS
from convert.families.twinformer import flax_rule, is_flax
from transformer_spec import Faults, TransformerConfig, UserError

LEAVES = ("kernel", "embedding", "scale")  # what a PyTorch ``weight`` may be called
TABLES = (SHARED, SOURCE_TABLE, TARGET_TABLE, OUTPUT_TABLE)


class FlaxNaming(Family):
    """The Flax naming of a PyTorch family: its rules and settings, with other leaves."""

    containers = ("msgpack", "safetensors")
    family: ClassVar[Any]

    @property
    def library(self) -> str:
        return self.family.library

    def recognizes(self, source: Source) -> bool:
        return self.family.is_named(source) and is_flax(source.tensors)

    def contradiction(self, source: Source) -> str | None:
        return self.family.contradiction(source)

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        self._check_expressible(config)
        return self.family.write_settings(config, original)

    def adapted(self, config: TransformerConfig) -> tuple[TransformerConfig, list[str]]:
        return self.family.adapted(config)

    def number_format(self, settings: Mapping[str, Any], dtype: str) -> dict[str, Any]:
        return self.family.number_format(settings, dtype)

    def _check_expressible(self, config: TransformerConfig) -> None:
        faults = Faults()
        try:
            self.family.check_expressible(config)
        except UserError as error:
            faults.take(error)
        if config.activation == "identity":
            faults.add("activation is 'identity', which the Flax modules do not know")
        self._check_tables(config, faults)
        faults.raise_if_any(f"{self.name} cannot hold this model")

    @abstractmethod
    def _check_tables(self, config: TransformerConfig, faults: Faults) -> None:
        """Add a fault for ties that the Flax modules have otherwise."""


class HuggingFaceFlax(FlaxNaming):
    """That of the classes with BART's names."""

    family: ClassVar[HuggingFace]

    def read_config(self, source: Source) -> Reading:
        faults, reading = Faults(), None
        if source.settings and source.settings.get(SHARE, True) is False:
            faults.add(f"{SHARE} is False; the Flax modules have one table for both halves")
        try:
            reading = self.family.read_config(_as_torch(source))
        except UserError as error:
            faults.take(error)
        faults.raise_if_any(f"{self.name} cannot be read")
        assert reading is not None
        return reading

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        return [_flax(rule) for rule in self.family.rules(config, _as_torch(source, config))]

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """What the Flax ``save_pretrained`` wrote: an untied output beside one shared table."""
        self._check_expressible(config)
        zero = np.zeros((), np.float32)
        names = (PREFIX + SHARED, OUTPUT_BIAS)
        rules = self.rules(config, Source(Held({name: zero for name in names})))
        return Source(headers_only(rules, config))

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        settings = super().write_settings(config, original)
        return settings | ({SHARE: True} if SHARE in settings else {})

    def _check_tables(self, config: TransformerConfig, faults: Faults) -> None:
        if config.tied_embeddings == "target_output":
            faults.add("tied_embeddings is 'target_output'; the Flax modules tie 'all' or 'none'")
        HuggingFace.check_vocabularies(self.family, config, faults)


def _as_torch(source: Source, config: TransformerConfig | None = None) -> Source:
    """The same tensors under their PyTorch names; rules look at names and types alone.

    With a config, of the tables exactly those that a Flax model has.
    """
    given = {_torch_name(name): np.zeros((), h.dtype) for name, h in source.tensors.items()}
    if config is not None:
        prefix = PREFIX if any(name.startswith(PREFIX) for name in given) else ""
        wanted = [prefix + SHARED] + ([OUTPUT_TABLE] if config.tied_embeddings == "none" else [])
        given = {name: zero for name, zero in given.items() if not name.endswith(TABLES)}
        given |= {name: np.zeros((), np.float32) for name in wanted}
    return replace(source, tensors=Held(given, source.tensors.label))


def _torch_name(name: str) -> str:
    path, dot, leaf = name.rpartition(".")
    return f"{path}{dot}weight" if leaf in LEAVES else name


def _flax(rule: Rule) -> Rule:
    """A rule of the PyTorch family with the leaf, and the transposition, of the leaf table."""
    path, dot, leaf = rule.sources[0].rpartition(".") if rule.sources else ("", "", "")
    if leaf != "weight" or rule.targets[0].startswith(ASIDE):
        return rule
    ours = flax_rule(rule.targets[0])
    name = path + dot + ours.sources[0].rpartition(".")[2]
    operation = ours.operation if rule.operation is COPY else rule.operation
    return replace(rule, sources=(name,), operation=operation)


class MarianFlax(HuggingFaceFlax):
    name = "marian-flax"
    family = Marian()


class BartFlax(HuggingFaceFlax):
    name = "bart-flax"
    family = Bart()


class MBartFlax(HuggingFaceFlax):
    name = "mbart-flax"
    family = MBart()


class PegasusFlax(HuggingFaceFlax):
    """Its sinusoids are no parameters."""

    name = "pegasus-flax"
    family = Pegasus()


class BlenderbotFlax(HuggingFaceFlax):
    name = "blenderbot-flax"
    family = Blenderbot()


class BlenderbotSmallFlax(HuggingFaceFlax):
    name = "blenderbot-small-flax"
    family = BlenderbotSmall()


def as_torch(source: Source, torch_name: Callable[[str], str]) -> Source:
    """The same tensors under their PyTorch names, as PyTorch has them."""
    rules = [
        rename(name, torch_name(name), TRANSPOSE if name.endswith(".kernel") else COPY)
        for name in source.tensors
    ]
    return replace(source, tensors=Converted(source.tensors, rules))
