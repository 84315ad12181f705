"""Names of T5, mT5 and UMT5, and where each weight goes.

``save_pretrained`` writes the table of words once, as ``shared``, and ``lm_head`` where it is
another tensor; files of other origin hold any of the three names that the table has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from convert.core.operations import Constant, RuleError
from convert.core.rules import Rule, rename
from convert.core.tensors import Held, Tensors
from convert.families.base import Source, kept_aside
from convert.families.huggingface.names import (
    LIKE,
    OUR_OUTPUT,
    OUR_SOURCE,
    OUR_TARGET,
    headers_only,
    one_table,
)
from convert.families.t5.output import HALVES, OUTPUT_TABLE, SHARED, SOURCE_TABLE, TARGET_TABLE
from convert.families.t5.settings import T5Settings
from transformer_spec import TransformerConfig

PROJECTIONS = {"q": "fcQ", "k": "fcK", "v": "fcV", "o": "fcOut"}
# Of each half: its layers, its attentions (theirs -> ours), in the order of sub-layers.
STACKS = {
    "encoder": ("encoder.enc_layers", {"SelfAttention": "multiheadattention"}),
    "decoder": (
        "decoder.dec_layers",
        {"SelfAttention": "multiheadattention1", "EncDecAttention": "multiheadattention2"},
    ),
}
POSITIONS = "layer.0.SelfAttention.relative_attention_bias"
DEAD = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
NORM_BIAS = "layer_norm.bias"  # of blocks and of halves


class NoBias(Constant):
    """A bias of a norm in a file of 2020, which is accepted as zeros alone."""

    reversed_compares = True

    def inverse(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        if arrays[0].any():
            raise RuleError("the norms of these models have no bias, and this one is not zero")
        return super().inverse(*arrays)


class T5(T5Settings):
    """T5 of 2019, T5 1.1, Flan-T5, ByT5, UL2, MADLAD-400 and all others of the class."""

    name = "t5"
    model_type = "t5"
    architecture = "T5ForConditionalGeneration"

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        names = module_names(config)
        rules = [rename(f"{names[ours]}.weight", f"{ours}.weight") for ours in names]
        return rules + table_rules(config, source.tensors) + _older_rules(source.tensors)

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """What ``save_pretrained`` writes, float32."""
        self.check_expressible(config)
        saved = self.written_output(config)
        assert saved is not None
        skeleton = Held({name: np.zeros((), np.float32) for name in saved.tables})
        return Source(headers_only(self.rules(config, Source(skeleton)), config))

    def like(self) -> TransformerConfig:
        output = {"tied_embeddings": "source_target", "output_scale": 1.0}
        rates = {"attention_dropout": 0.1, "activation_dropout": 0.1, "final_dropout": 0.1}
        gated = {"gated_ffn": self.feed_forward.startswith("gated")}
        return TransformerConfig.from_dict(LIKE | self.fields | output | rates | gated)


class MT5(T5):
    """mT5 and Aya-101."""

    name = "mt5"
    model_type = "mt5"
    architecture = "MT5ForConditionalGeneration"
    feed_forward = "gated-gelu"
    tie = False
    start_id = 0


class UMT5(MT5):
    """UMT5 and Pile-T5: positions of their own in every layer."""

    name = "umt5"
    model_type = "umt5"
    architecture = "UMT5ForConditionalGeneration"
    tie = True
    per_layer = True
    unk_id = 3


def module_names(config: TransformerConfig) -> dict[str, str]:
    """Our module -> theirs for everything but tables of words and the output projection."""
    names: dict[str, str] = {}
    for half, (layers, attentions) in STACKS.items():
        own_table = config.relative_per_layer
        for i in range(getattr(config, f"num_{half}_layers")):
            ours, theirs = f"{layers}.{i}", f"{half}.block.{i}"
            names |= _layer(config, ours, theirs, attentions)
            if own_table:
                names[f"{ours}.{attentions['SelfAttention']}.relative_bias"] = (
                    f"{theirs}.{POSITIONS}"
                )
        if not own_table:
            names[f"{half}.relative_bias"] = f"{half}.block.0.{POSITIONS}"
        names[f"{half}.final_norm"] = f"{half}.final_layer_norm"
    return names


def _layer(
    config: TransformerConfig, ours: str, theirs: str, attentions: Mapping[str, str]
) -> dict[str, str]:
    names = {}
    for number, (module, mine) in enumerate(attentions.items()):
        at = f"{theirs}.layer.{number}"
        names |= {f"{ours}.{mine}.{p}": f"{at}.{module}.{x}" for x, p in PROJECTIONS.items()}
        names[f"{ours}.layerNorm{number + 1}"] = f"{at}.layer_norm"
    at, first = f"{theirs}.layer.{len(attentions)}", "wi_0" if config.gated_ffn else "wi"
    names[f"{ours}.layerNorm{len(attentions) + 1}"] = f"{at}.layer_norm"
    parts = {"fc1": first, "fc2": "wo"} | ({"fc3": "wi_1"} if config.gated_ffn else {})
    return names | {f"{ours}.ffn.{p}": f"{at}.DenseReluDense.{x}" for p, x in parts.items()}


def table_rules(config: TransformerConfig, given: Collection[str]) -> list[Rule]:
    """Tables of words, each under as many of its names as the file has."""
    if config.tied_embeddings == "all":
        return [one_table([*HALVES, OUTPUT_TABLE], OUR_SOURCE, given)]
    output = rename(OUTPUT_TABLE, OUR_OUTPUT)
    if config.tied_embeddings == "source_target":
        return [one_table([*HALVES], OUR_SOURCE, given), output]
    source = SOURCE_TABLE if SOURCE_TABLE in given else SHARED
    target = TARGET_TABLE if TARGET_TABLE in given else SHARED
    dead = SHARED in given and SHARED not in (source, target)
    aside = [kept_aside(SHARED, "not used where both halves have their own")] if dead else []
    return [rename(source, OUR_SOURCE), rename(target, OUR_TARGET), output, *aside]


def _older_rules(given: Tensors) -> list[Rule]:
    """What files of 2020 hold beside the weights."""
    rules = [kept_aside(DEAD, "cross-attention has no positions")] if DEAD in given else []
    for name in (name for name in given if name.endswith(NORM_BIAS)):
        zeros = NoBias(given[name].shape, given[name].dtype).reversed
        rules.append(Rule((name,), (), zeros, "zeros: norms have no bias"))
    return rules
