"""Names of the Hugging Face encoder-decoders, and where each weight goes.

Marian, BART, mBART and M2M100 name the same things in the same way; one table is derived for every
layer. ``save_pretrained`` (transformers 5.23) drops the aliases of tied tables, the sinusoid tables
of Marian and nothing else; files of other versions may hold them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from convert.core.operations import AddAxis, Constant, Duplicate
from convert.core.rules import Rule, rename
from convert.core.tensors import Held
from convert.families.base import Source, kept_aside
from convert.families.huggingface.settings import OUTPUT_BIAS, HuggingFaceSettings
from convert.families.sinusoids import sinusoid_rule
from transformer_spec import TransformerConfig, weight_shapes

PREFIX = "model."  # absent where only the model under the head was saved
SHARED, SOURCE_TABLE = "shared.weight", "encoder.embed_tokens.weight"
TARGET_TABLE, OUTPUT_TABLE = "decoder.embed_tokens.weight", "lm_head.weight"
# Where the words of each half are.
WORDS = {
    "source_vocab_size": (SOURCE_TABLE, SHARED),
    "target_vocab_size": (TARGET_TABLE, SHARED),
}
OUR_SOURCE, OUR_TARGET = "encoder.embedding.weight", "decoder.embedding.weight"
OUR_OUTPUT = "decoder.finalFc.weight"
VERSIONS = ("encoder.version", "decoder.version")
SINUSOIDS = tuple(f"{half}.embed_positions.weight" for half in ("encoder", "decoder"))

# A model of any size, to see which names a class has.
LIKE: dict[str, Any] = {
    "source_vocab_size": 8,
    "target_vocab_size": 8,
    "hidden_dim": 4,
    "inner_dim": 4,
    "max_length": 8,
    "num_heads": 1,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "pad_id": 0,
    "decoder_start_id": 1,
    "attention_scale": 0.5,
}

CONVOLUTIONS = ("encoder.conv1", "encoder.conv2")
PROJECTIONS = {"q_proj": "fcQ", "k_proj": "fcK", "v_proj": "fcV", "out_proj": "fcOut"}


def _attention(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.{name}": f"{ours}.{mine}" for name, mine in PROJECTIONS.items()}


HALF = {
    "embed_positions": "pos_embedding",
    "layernorm_embedding": "embedding_norm",
    "layer_norm": "final_norm",
}
ENCODER_LAYER = _attention("self_attn", "multiheadattention") | {
    "self_attn_layer_norm": "layerNorm1",
    "fc1": "ffn.fc1",
    "fc2": "ffn.fc2",
    "final_layer_norm": "layerNorm2",
}
DECODER_LAYER = (
    _attention("self_attn", "multiheadattention1")
    | _attention("encoder_attn", "multiheadattention2")
    | {
        "self_attn_layer_norm": "layerNorm1",
        "encoder_attn_layer_norm": "layerNorm2",
        "fc1": "ffn.fc1",
        "fc2": "ffn.fc2",
        "final_layer_norm": "layerNorm3",
    }
)


def module_names(config: TransformerConfig) -> dict[str, str]:
    """Our module -> theirs for everything but embedding tables and the output projection."""
    names: dict[str, str] = {}
    halves = (
        ("encoder", "enc_layers", config.num_encoder_layers, ENCODER_LAYER),
        ("decoder", "dec_layers", config.num_decoder_layers, DECODER_LAYER),
    )
    for half, layers, count, layer in halves:
        names |= {f"{half}.{ours}": f"{half}.{theirs}" for theirs, ours in HALF.items()}
        for i in range(count):
            ours_at, theirs_at = f"{half}.{layers}.{i}.", f"{half}.layers.{i}."
            names |= {ours_at + ours: theirs_at + theirs for theirs, ours in layer.items()}
    return names | ({name: name for name in CONVOLUTIONS} if config.feature_dim else {})


@dataclass(frozen=True)
class Written(Source):
    """Names to be written for a model that was not imported under them: nothing is kept aside."""


class HuggingFace(HuggingFaceSettings):
    """A family of PyTorch checkpoints; the settings are the class above's."""

    padding_gradient = False
    shared_is_dead: ClassVar[bool] = True  # whether an untied model still stores ``shared``

    def table_rows(self, source: Source) -> dict[str, int]:
        found = {}
        for field, stems in WORDS.items():
            names = [prefix + stem for stem in stems for prefix in (PREFIX, "")]
            shapes = [source.tensors[name].shape for name in names if name in source.tensors]
            if shapes and len(shapes[0]) == 2:
                found[field] = shapes[0][0]
        return found

    def like(self) -> TransformerConfig:
        fields = dict(self.fields) | {"tied_embeddings": "all", "output_bias": "none"}
        fields["position_offset"] = self.position_offset(0)
        return TransformerConfig.from_dict(LIKE | fields)

    def unnumbered(self, name: str) -> str:
        return super().unnumbered(name.removeprefix(PREFIX))

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        given = source.tensors
        prefix = PREFIX if any(name.startswith(PREFIX) for name in given) else ""
        theirs = module_names(config)
        rules = []
        for name in weight_shapes(config):
            module, _, leaf = name.rpartition(".")
            if module in theirs:
                rules.append(rename(f"{prefix}{theirs[module]}.{leaf}", name))
        rules += self.table_rules(config, prefix, source)
        return rules + self._bias_rules(config, source) + _aside_rules(config, prefix, given)

    def table_rules(self, config: TransformerConfig, prefix: str, source: Source) -> list[Rule]:
        return table_rules(config, prefix, source.tensors, isinstance(source, Written))

    def _bias_rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        """Their (1, V) is our (V); a model without a bias is written with zeros."""
        if config.output_bias != "none":
            return [rename(OUTPUT_BIAS, "decoder.finalFc.bias", AddAxis().reversed)]
        if OUTPUT_BIAS not in source.tensors or not self.output_bias:
            return []
        zeros = Constant((1, config.target_vocab_size), source.tensors[OUTPUT_BIAS].dtype)
        return [Rule((OUTPUT_BIAS,), (), zeros.reversed, "zeros: the model has no output bias")]

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """What ``save_pretrained`` writes, float32."""
        self.check_expressible(config)
        names = self.saved_tables(config) + ([OUTPUT_BIAS] if self.output_bias else [])
        skeleton = Written(Held({name: np.zeros((), np.float32) for name in names}))
        return Written(headers_only(self.rules(config, skeleton), config))

    def saved_tables(self, config: TransformerConfig) -> list[str]:
        """Tied tables are saved once, under the name that the others are tied to."""
        if config.tied_embeddings == "all":
            return [PREFIX + SHARED]
        own = [PREFIX + SOURCE_TABLE, PREFIX + TARGET_TABLE]
        if config.tied_embeddings == "target_output":
            return own
        return own + [OUTPUT_TABLE] + ([PREFIX + SHARED] if self.shared_is_dead else [])


def headers_only(rules: list[Rule], config: TransformerConfig) -> Held:
    """Arrays of one stored number with the shapes of the rules' sources."""
    shapes, zero = weight_shapes(config), np.zeros((), np.float32)
    arrays = {}
    for rule in rules:
        found = rule.operation.inverse_shapes(*(shapes[target] for target in rule.targets))
        for name, shape in zip(rule.sources, found, strict=True):
            arrays[name] = np.broadcast_to(zero, shape)
    return Held(arrays)


def table_rules(
    config: TransformerConfig, prefix: str, given: Collection[str], is_written: bool
) -> list[Rule]:
    """Embedding tables and output projection, under as many names as the file has for each."""
    shared, source, target = prefix + SHARED, prefix + SOURCE_TABLE, prefix + TARGET_TABLE
    if config.tied_embeddings == "all":
        return [one_table([shared, source, target, OUTPUT_TABLE], OUR_SOURCE, given)]
    if config.tied_embeddings == "target_output":
        return [rename(source, OUR_SOURCE), one_table([target, OUTPUT_TABLE], OUR_TARGET, given)]
    output = rename(OUTPUT_TABLE, OUR_OUTPUT)
    if shared in given and source not in given and target not in given:
        reason = "one table for both halves, the output projection apart (transformers 4)"
        return [Rule((shared,), (OUR_SOURCE, OUR_TARGET), Duplicate(2), reason), output]
    if shared in given and is_written:
        reason = f"{shared} is stored, and not used, where tables are not tied"
        tables = Rule((source, shared), (OUR_SOURCE,), Duplicate(2).reversed, reason)
        return [tables, rename(target, OUR_TARGET), output]
    dead = [kept_aside(shared, "not used where tables are not tied")] if shared in given else []
    return [rename(source, OUR_SOURCE), rename(target, OUR_TARGET), output, *dead]


def one_table(names: list[str], ours: str, given: Collection[str]) -> Rule:
    """One weight under all of ``names`` that are given, which must have the same bytes."""
    found = tuple(name for name in names if name in given) or (names[0],)
    if len(found) == 1:
        return rename(found[0], ours)
    return Rule(found, (ours,), Duplicate(len(found)).reversed, "tied in the config")


def _aside_rules(config: TransformerConfig, prefix: str, given: Collection[str]) -> list[Rule]:
    """What older files hold beside the weights."""
    versions = dict.fromkeys((*VERSIONS, *(prefix + stem for stem in VERSIONS)))
    reason = "a mark of fairseq's, which the library does not read"
    rules = [kept_aside(name, reason) for name in versions if name in given]
    if config.encoder_positions == "sinusoidal":
        for name in (prefix + stem + plural for stem in SINUSOIDS for plural in ("", "s")):
            if name in given:
                rules.append(sinusoid_rule(name, config))
    return rules
