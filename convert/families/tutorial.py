"""The PyTorch tutorial that the project descends from, in both forms in which it was published.

The later form has our names and one table more, ``decoder.pos_embedding``, which its code creates
and never uses. The first form has one ``layerNorm`` per layer, used after every sub-layer: it is
duplicated into ``layerNorm1`` to ``layerNorm3``. A decoder layer with one ``multiheadattention``
used it twice as well, since without the second use it would not see the encoder. Only the later
form is written.
"""

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from convert.rules import Constant, Duplicate, Rule, rename
from transformer_spec import Faults, TransformerConfig, weight_shapes

UNUSED = "decoder.pos_embedding.weight"
REASON = "created by the tutorial's code, never used by it"

# What that code computes, as far as a config can say it; -1e4 in place of -inf under the mask
# differs by exp(-1e4), which is zero in float64.
SEMANTICS: dict[str, Any] = {
    "norm_position": "post",
    "final_norm": False,
    "embedding_norm": False,
    "activation": "identity",
    "encoder_positions": "learned",
    "decoder_positions": "none",
    "position_offset": 0,
    "positions_skip_padding": False,
    "embedding_scale": 1.0,
    "attention_scale": 1.0,
    "attention_bias": True,
    "ffn_bias": True,
    "output_bias": "trained",
    "tied_embeddings": "none",
    "norm_epsilon": 1e-5,
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": 2,
    "eos_id": 3,
}
DEFAULTS: dict[str, Any] = SEMANTICS | {"max_length": 100}


def import_rules(config: TransformerConfig, given: Collection[str]) -> list[Rule]:
    """Tutorial -> canonical, whichever form the given names have; layer by layer."""
    groups: dict[str, list[str]] = {}
    for name in weight_shapes(config):
        groups.setdefault(_tutorial_name(name, given), []).append(name)
    rules = [_shared_rule(source, tuple(targets)) for source, targets in groups.items()]
    if UNUSED in given:
        rules.append(Rule((UNUSED,), (f"aside/{UNUSED}",), reason=f"kept aside: {REASON}"))
    return rules


def export_rules(
    config: TransformerConfig, kept_aside: Collection[str], dtype: np.dtype
) -> list[Rule]:
    """Canonical -> the later form; the unused table is zeros where none was kept aside."""
    rules = [rename(name, name) for name in weight_shapes(config)]
    if f"aside/{UNUSED}" in kept_aside:
        return [*rules, Rule((f"aside/{UNUSED}",), (UNUSED,), reason=f"put back: {REASON}")]
    shape = (config.max_length, config.hidden_dim)
    return [*rules, Rule((), (UNUSED,), Constant(shape, dtype), f"zeros: {REASON}")]


def check_expressible(config: TransformerConfig) -> None:
    """Raise one UserError that names every setting the tutorial's code does not have."""
    faults = Faults()
    for name, value in SEMANTICS.items():
        given = getattr(config, name)
        faults.require(given == value, f"{name} is {given!r}; the tutorial has {value!r} only")
    faults.raise_if_any("the tutorial's code cannot hold this model")


def _tutorial_name(name: str, given: Collection[str]) -> str:
    """The canonical name, or that of the one module that the first form uses in its place."""
    if name in given:
        return name
    shared = re.sub(r"\.(layerNorm|multiheadattention)\d\.", r".\1.", name)
    return shared if shared in given else name


def _shared_rule(source: str, targets: tuple[str, ...]) -> Rule:
    if len(targets) == 1:
        return rename(source, targets[0])
    return Rule((source,), targets, Duplicate(len(targets)), "one module used several times")
