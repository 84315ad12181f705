"""eole's encoder-decoder Transformer, which is that of OpenNMT-py under other names.

A folder holds ``config.json``, ``vocab.json`` and ``model.00.safetensors``; the settings are the
first, with the second under the key ``vocab``. Import only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from convert.core.operations import Arrays, Copy, Duplicate, RuleError
from convert.core.rules import Rule, rename
from convert.core.tensors import Renamed
from convert.families.base import Family, Reading, Settings, Source, kept_aside
from convert.families.eole.config import activation_of, is_eole, options_of
from convert.families.opennmt.config import SOURCE_TABLE, TARGET_TABLE, config_values
from convert.families.opennmt.family import OpenNMT
from transformer_spec import TransformerConfig

LIKE = OpenNMT()
EOLE_TABLE = "src_emb.embeddings.weight"
# eole's names -> OpenNMT-py's, each for the whole name.
LAYER = r"\.transformer_layers\.(\d+)\."
NAMES = {
    r"src_emb\.embeddings\.": "encoder.embeddings.make_embedding.emb_luts.0.",
    r"tgt_emb\.embeddings\.": "decoder.embeddings.make_embedding.emb_luts.0.",
    r"src_emb\.pe\.": "encoder.embeddings.make_embedding.pe.",
    r"tgt_emb\.pe\.": "decoder.embeddings.make_embedding.pe.",
    rf"encoder{LAYER}input_layernorm\.": r"encoder.transformer.\1.layer_norm.",
    rf"decoder{LAYER}input_layernorm\.": r"decoder.transformer_layers.\1.layer_norm_1.",
    rf"decoder{LAYER}precontext_layernorm\.": r"decoder.transformer_layers.\1.layer_norm_2.",
    rf"encoder{LAYER}post_attention_layernorm\.": (
        r"encoder.transformer.\1.feed_forward.layer_norm."
    ),
    rf"decoder{LAYER}post_attention_layernorm\.": (
        r"decoder.transformer_layers.\1.feed_forward.layer_norm."
    ),
    rf"encoder{LAYER}mlp\.gate_up_proj\.": r"encoder.transformer.\1.feed_forward.w_1.",
    rf"decoder{LAYER}mlp\.gate_up_proj\.": r"decoder.transformer_layers.\1.feed_forward.w_1.",
    rf"encoder{LAYER}mlp\.down_proj\.": r"encoder.transformer.\1.feed_forward.w_2.",
    rf"decoder{LAYER}mlp\.down_proj\.": r"decoder.transformer_layers.\1.feed_forward.w_2.",
    rf"encoder{LAYER}": r"encoder.transformer.\1.",
}
SCALAR = "layer_scalar"


class Ones(Copy):
    """A factor on a layer's output, which must be 1: our layers have none."""

    label = "checked"
    compares = reversed_compares = True

    def forward(self, *arrays: np.ndarray) -> Arrays:
        if not np.all(arrays[0] == 1):
            raise RuleError("it multiplies a layer's output, and it is not 1")
        return arrays

    inverse = forward


class Eole(Family):
    """``model.00.safetensors`` of eole, architecture transformer."""

    name = "eole"
    padding_gradient = False

    def recognizes(self, source: Source) -> bool:
        return EOLE_TABLE in source.tensors and LIKE.recognizes(_renamed(source)[0])

    def read_config(self, source: Source) -> Reading:
        """The settings under ``model``, the rates of the training, and the vocabulary."""
        config = source.settings or {}
        like, settings = _renamed(source)[0], Settings({}, source.ignored)
        if not is_eole(config):
            settings.faults.add("its config.json is missing: it says what the model is")
        read = Settings(options_of(config, settings), ())
        read.faults, flags = settings.faults, dict(source.flags)
        activation = activation_of(config, settings)
        asked = flags.pop("activation", activation)
        values = config_values(replace(like, flags=flags), read) | {"activation": activation}
        same = asked == activation
        read.faults.require(same, f"activation is {asked!r}; its settings say {activation!r}")
        read.finish("this eole checkpoint")
        return Reading(TransformerConfig.from_dict(values), [NOTE, *settings.notes, *_notes(read)])

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        like, theirs = _renamed(source)
        rules = [
            replace(rule, sources=tuple(theirs.get(x) or _back(x) for x in rule.sources))
            for rule in LIKE.rules(config, like)
        ]
        rules = _of_shared_table(rules)
        scalars = [name for name in source.tensors if name.endswith(f".{SCALAR}")]
        reason = "a factor on a layer's output, which is 1"
        return rules + [replace(kept_aside(name, reason), operation=Ones()) for name in scalars]


NOTE = "eole gives the source no end token: leave it out there too"


def _notes(settings: Settings) -> list[str]:
    return [note for note in settings.notes if "OpenNMT-py" not in note]


def _renamed(source: Source) -> tuple[Source, Mapping[str, str]]:
    """The source under OpenNMT-py's names, and those names -> eole's."""
    plain = [name for name in source.tensors if not name.endswith(f".{SCALAR}")]
    theirs = {_opennmt_name(name): name for name in plain}
    values = (source.settings or {}).get("model")
    shared = isinstance(values, Mapping) and bool(values.get("share_embeddings"))
    if shared and SOURCE_TABLE in theirs:  # eole saves the table once
        theirs.setdefault(TARGET_TABLE, theirs[SOURCE_TABLE])
    return replace(source, tensors=Renamed(source.tensors, theirs)), theirs


def _of_shared_table(rules: list[Rule]) -> list[Rule]:
    """Rules in which the one table stands once, whatever it is used for."""
    using = [rule for rule in rules if EOLE_TABLE in rule.sources]
    names = tuple(dict.fromkeys(name for rule in using for name in rule.sources))
    targets = tuple(target for rule in using for target in rule.targets)
    if len(using) == 1 and len(names) == len(using[0].sources):
        return rules
    if len(targets) == 1:
        tied = Rule(names, targets, Duplicate(len(names)).reversed, "tied")
        merged = rename(names[0], targets[0]) if len(names) == 1 else tied
    else:
        merged = Rule(names, targets, Duplicate(len(targets)), "one table in both halves")
    return [merged, *(rule for rule in rules if rule not in using)]


def _opennmt_name(name: str) -> str:
    for pattern, name_there in NAMES.items():
        found, count = re.subn(f"^{pattern}", name_there, name)
        if count:
            return found
    return name


def _back(name: str) -> str:
    """eole's name of what a file lacks."""
    for pattern, there in NAMES.items():
        number = r"(\d+)" if r"\1" in there else ""
        head, _, tail = there.partition(r"\1")
        match = re.match(re.escape(head) + number + re.escape(tail), name)
        if match:
            layer = rf".transformer_layers.{match[1]}." if number else ""
            mine = pattern.replace(LAYER, layer) if number else pattern
            return mine.replace("\\", "") + name[match.end() :]
    return name
