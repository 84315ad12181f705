"""The PyTorch tutorial that the project descends from, in both forms in which it was published.

The later form has our names and one table more, ``decoder.pos_embedding``, which its code creates
and never uses. The first form has one ``layerNorm`` per layer, used after every sub-layer: it is
duplicated into ``layerNorm1`` to ``layerNorm3``. A decoder layer with one ``multiheadattention``
used it twice as well, since without the second use it would not see the encoder. Only the later
form is written.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from convert.core.operations import Duplicate
from convert.core.rules import Rule, rename
from convert.families.base import Family, Reading, Source, announced, kept_aside
from convert.families.usual_parts import check_usual_parts
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


class Tutorial(Family):
    """Either published form is read, the later one is written."""

    name = "tutorial"
    containers = ("pt", "safetensors")
    restores_names = False
    passes_over = False
    never_read = frozenset({UNUSED})

    def recognizes(self, source: Source) -> bool:
        """Never by itself: the later form has the names of our own PyTorch twin."""
        return False

    def read_config(self, source: Source) -> Reading:
        """What the code computes is known; sizes are given as flags."""
        return Reading(TransformerConfig.from_dict(DEFAULTS | dict(source.flags)))

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        given = source.tensors
        groups: dict[str, list[str]] = {}
        for name in weight_shapes(config):
            groups.setdefault(_tutorial_name(name, given), []).append(name)
        rules = [_shared_rule(theirs, tuple(ours)) for theirs, ours in groups.items()]
        return rules + ([kept_aside(UNUSED, REASON)] if UNUSED in given else [])

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        table = (config.max_length, config.hidden_dim)
        return announced(weight_shapes(config) | {UNUSED: table})

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """None: that code has no config file. A setting that it does not have is a UserError."""
        faults = Faults()
        for name, value in SEMANTICS.items():
            given = getattr(config, name)
            faults.require(given == value, f"{name} is {given!r}; the tutorial has {value!r} only")
        check_usual_parts(config, "the tutorial", faults)
        faults.raise_if_any("the tutorial's code cannot hold this model")
        return {}


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
