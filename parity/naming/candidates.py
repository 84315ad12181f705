"""A candidate: what every tensor of theirs is of ours, with settings; its logits by the twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import torch_transformer
from convert.core.pipeline import Converted
from convert.core.rules import ASIDE
from convert.core.tensors import Held
from convert.families.base import Source
from convert.naming.family import NamedFamily
from convert.naming.parsing import table_of
from convert.naming.settings import is_expression, value_of
from parity.forward.ids import Ids
from torch_transformer.layers import StdNorm
from transformer_spec import TransformerConfig

# What a tensor of theirs is: ours, and its layout where it is not the usual one.
Place = tuple[tuple[str, ...], str | None]
# Settings that change the structure of the twin or what its weights are.
STRUCTURAL = ("norm", "encoder_positions", "decoder_positions", "position_offset")
OF_HEADS = ("heads", "block")  # words of layouts that need their number


@dataclass(frozen=True)
class Candidate:
    """``places`` are of patterns of theirs; ``settings`` are those of a table."""

    places: tuple[tuple[str, Place], ...]
    settings: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, places: Mapping[str, Place], settings: Mapping[str, Any]) -> Candidate:
        return cls(tuple(places.items()), tuple(settings.items()))

    def settled(self, **settings: Any) -> Candidate:
        return dataclasses.replace(
            self, settings=tuple({**dict(self.settings), **settings}.items())
        )

    def placed(self, places: Mapping[str, Place]) -> Candidate:
        return dataclasses.replace(self, places=tuple({**dict(self.places), **places}.items()))

    @property
    def values(self) -> dict[str, Any]:
        return dict(self.settings)

    def content(self, unused: Mapping[str, Any]) -> dict[str, Any]:
        """The table, as plain data."""
        names = {
            text: _entry(*place)
            for text, place in sorted(self.places, key=lambda item: _order(item[1][0][0]))
        }
        return {"name": "found", "config": self.values, "names": names, "unused": dict(unused)}


def _entry(ours: tuple[str, ...], layout: str | None) -> Any:
    to = ours[0] if len(ours) == 1 else list(ours)
    return to if layout is None else {"to": to, "layout": layout}


def _order(ours: str) -> tuple[str, bool, bool, str]:
    """Encoder before decoder, embeddings before layers, what stands behind layers last."""
    half, _, rest = ours.partition(".")
    return ("decoder" in half and "1" or "0", "embedding" not in rest, "_layers" not in rest, rest)


@dataclass
class TwinSide:
    """The PyTorch twin in float64, made anew only where a candidate needs another structure."""

    unused: Mapping[str, Any] = field(default_factory=dict)
    models: dict[Any, torch_transformer.Transformer] = field(default_factory=dict)
    configs: dict[Any, tuple[TransformerConfig, list[Any]]] = field(default_factory=dict)
    loaded: dict[Any, Any] = field(default_factory=dict)
    evaluations: int = 0

    def config(self, candidate: Candidate, weights: Mapping[str, np.ndarray]) -> TransformerConfig:
        config, heads = self._read(candidate, weights)[0], candidate.values["num_heads"]
        config = dataclasses.replace(config, num_heads=heads, head_dim=config.heads_dim // heads)
        return dataclasses.replace(config, **_plain(candidate, config))

    def canonical(
        self, candidate: Candidate, weights: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Their weights as ours."""
        rules = self._read(candidate, weights)[1]
        found = Converted(Held(weights), rules)
        return {
            name: np.asarray(found.read(name), np.float64)
            for name in found
            if not name.startswith(ASIDE)
        }

    def logits(
        self, candidate: Candidate, weights: Mapping[str, np.ndarray], key: Any, ids: Ids
    ) -> np.ndarray:
        """What the twin computes; ``key`` stands for the weights."""
        self.evaluations += 1
        config = self.config(candidate, weights)
        structure = self._structure(candidate)
        model = self.models.get(structure)
        if model is None:
            model = torch_transformer.Transformer.skeleton(config, torch.float64)
            self.models[structure] = model
        if self.loaded.get(structure) != (key, candidate.places):
            torch_transformer.load_weights(model, self.canonical(candidate, weights))
            self.loaded[structure] = (key, candidate.places)
        _configure(model, config)
        with torch.no_grad():
            return model(*(torch.from_numpy(part) for part in ids)).numpy()

    def _structure(self, candidate: Candidate) -> Any:
        values, layouts = candidate.values, " ".join(str(p[1]) for _, p in candidate.places)
        heads = values["num_heads"] if any(word in layouts for word in OF_HEADS) else None
        return heads, *(values.get(name) for name in STRUCTURAL)

    def _read(self, candidate: Candidate, weights: Mapping[str, np.ndarray]) -> Any:
        """The config and rules by the engine of tables, once for each structure."""
        key = candidate.places, self._structure(candidate)
        if key not in self.configs:
            family = NamedFamily(table_of(candidate.content(self.unused), "a candidate"))
            source = Source(Held(weights, "the module"))
            config = family.read_config(source).config
            self.configs[key] = config, family.rules(config, source)
        return self.configs[key]


def _plain(candidate: Candidate, config: TransformerConfig) -> dict[str, Any]:
    """Settings that change no structure, as numbers and words."""
    return {
        name: value_of(value, config) if is_expression(name, value) else value
        for name, value in candidate.settings
        if name not in (*STRUCTURAL, "num_heads")
    }


def _configure(model: torch_transformer.Transformer, config: TransformerConfig) -> None:
    """Give every part of a model a config that differs in no structure."""
    for part in model.modules():
        if hasattr(part, "config"):
            part.config = config  # type: ignore[assignment]
        if isinstance(part, (torch.nn.LayerNorm, torch.nn.RMSNorm)):
            part.eps = config.norm_epsilon
        elif isinstance(part, StdNorm):
            part.epsilon = config.norm_epsilon
