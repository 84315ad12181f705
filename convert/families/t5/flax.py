"""The Flax twins of T5 and mT5, of transformers 4: ``flax_model.msgpack``.

Paths are the PyTorch names with dots as nesting. Kernels are transposed; the weights of norms are
called ``weight`` here too. There is one table of words, and ``lm_head`` beside it where
``tie_word_embeddings`` is false, which multiplies the output by 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from convert.core.operations import COPY, TRANSPOSE
from convert.core.rules import Rule
from convert.families.base import Reading, Source
from convert.families.huggingface.flax import FlaxNaming, as_torch
from convert.families.huggingface.names import headers_only
from convert.families.t5.names import MT5, T5
from convert.families.t5.output import OUTPUT_TABLE, Tables
from transformer_spec import Faults, TransformerConfig

EMBEDDINGS = ("shared", "embed_tokens", "relative_attention_bias")


class T5Flax(FlaxNaming):
    """The Flax naming of T5's class."""

    name = "t5-flax"
    family: ClassVar[T5] = T5()

    def read_config(self, source: Source) -> Reading:
        """An output that is there is a weight of its own, whatever its bytes."""
        like = as_torch(source, _torch_name)
        there = OUTPUT_TABLE in like.tensors
        tables = Tables("source_target" if there else "all", there)
        return self.family.reading(like, tables if source.tensors else None)

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        return [_flax(rule) for rule in self.family.rules(config, as_torch(source, _torch_name))]

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """What the Flax ``save_pretrained`` wrote, float32."""
        self._check_expressible(config)
        skeleton = self.family.written(config)
        rules = [_flax(rule) for rule in self.family.rules(config, skeleton)]
        return Source(headers_only(rules, config))

    def _check_tables(self, config: TransformerConfig, faults: Faults) -> None:
        given = config.tied_embeddings, config.output_scale == 1.0
        faults.require(
            given in (("all", False), ("source_target", True)),
            f"tied_embeddings is {given[0]!r} with output_scale {config.output_scale!r}; the Flax "
            "modules have 'all' with 1/sqrt(D) or 'source_target' with 1",
        )


class MT5Flax(T5Flax):
    name = "mt5-flax"
    family = MT5()


def _torch_name(name: str) -> str:
    path, dot, leaf = name.rpartition(".")
    return f"{path}{dot}weight" if leaf in ("kernel", "embedding") else name


def _flax(rule: Rule) -> Rule:
    """A rule of the PyTorch class with the leaves of the Flax modules, and their transposition."""
    names = tuple(map(_flax_name, rule.sources))
    turned = rule.operation is COPY and names[0].endswith(".kernel")
    return replace(rule, sources=names, operation=TRANSPOSE if turned else rule.operation)


def _flax_name(name: str) -> str:
    path, _, leaf = name.rpartition(".")
    if leaf != "weight" or path.endswith("norm"):
        return name
    return f"{path}.{'embedding' if path.endswith(EMBEDDINGS) else 'kernel'}"
