"""The Flax twin of Whisper's class, of transformers 4: ``flax_model.msgpack``.

Nested names are joined by dots. The paths are the PyTorch names, but for an output of its own; the
leaves, and what is transposed, come from the leaf table: a convolution (D, M, 3) is (3, M, D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from convert.core.rules import Rule
from convert.core.tensors import Subset
from convert.families.base import Reading, Source
from convert.families.huggingface.flax import LEAVES, FlaxNaming, as_torch
from convert.families.huggingface.names import headers_only
from convert.families.twinformer import flax_rule
from convert.families.whisper.names import OUTPUT_TABLE, Whisper
from transformer_spec import Faults, TransformerConfig, UserError

FLAX_OUTPUT = "lm_head.weight"  # with a PyTorch leaf
SCANNED = ("FlaxEncoderScanLayers", "FlaxDecoderScanLayers")


class WhisperFlax(FlaxNaming):
    """The Flax naming of Whisper's class."""

    name = "whisper-flax"
    family: ClassVar[Whisper] = Whisper()

    def read_config(self, source: Source) -> Reading:
        _check_layers(source)
        return self.family.read_config(as_torch(source, _torch_name))

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        """Where the output is tied, one that is there all the same is taken by no rule."""
        given = as_torch(source, _torch_name)
        tied = {OUTPUT_TABLE} if config.tied_embeddings == "target_output" else set[str]()
        kept = Subset(given.tensors, [name for name in given.tensors if name not in tied])
        return [_flax(rule) for rule in self.family.rules(config, replace(given, tensors=kept))]

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """What the Flax ``save_pretrained`` wrote, float32."""
        self._check_expressible(config)
        rules = [_flax(rule) for rule in self.family.rules(config, self.family.written(config))]
        return Source(headers_only(rules, config))

    def _check_tables(self, config: TransformerConfig, faults: Faults) -> None:
        """Those of the PyTorch class."""


def _check_layers(source: Source) -> None:
    """Layers that a training loop has stacked are not the library's."""
    found = [part for part in SCANNED if any(part in name.split(".") for name in source.tensors)]
    if found:
        raise UserError(
            f"{source.tensors.label} has its layers stacked ({' and '.join(found)}), as training "
            "loops scan them; only layers of their own, as the library saves them, are read"
        )


def _torch_name(name: str) -> str:
    path, dot, leaf = name.rpartition(".")
    plain = f"{path}{dot}weight" if leaf in LEAVES else name
    return OUTPUT_TABLE if plain == FLAX_OUTPUT else plain


def _flax(rule: Rule) -> Rule:
    """A rule of the PyTorch class with the leaf, and the transposition, of the leaf table."""
    ours = flax_rule(rule.targets[0])
    names = tuple(_flax_name(name, ours.sources[0]) for name in rule.sources)
    return replace(rule, sources=names, operation=ours.operation)


def _flax_name(name: str, ours: str) -> str:
    path, _, leaf = (FLAX_OUTPUT if name == OUTPUT_TABLE else name).rpartition(".")
    return f"{path}.{ours.rpartition('.')[2]}" if leaf == "weight" else name
