"""T5X's models as a config: sizes from shapes, the rest from a gin file or from flags."""

from __future__ import annotations

from typing import Any

from convert.core.tensors import Header
from convert.families.base import Reading, Source
from convert.families.given import with_flags
from convert.families.t5x.form import OUTPUT, SELF, Form, check_form, layers_of
from convert.families.t5x.settings import DROPOUT, GIN, STEP, GinSettings
from transformer_spec import DROPOUTS, Faults, TransformerConfig

MAX_LENGTH = 512
# What T5X computes whatever its settings are.
SEMANTICS: dict[str, Any] = {
    "norm_position": "pre",
    "final_norm": True,
    "embedding_norm": False,
    "norm": "rms",
    "norm_epsilon": 1e-6,
    "encoder_positions": "relative",
    "decoder_positions": "relative",
    "embedding_scale": 1.0,
    "attention_scale": 1.0,
    "attention_bias": False,
    "attention_output_bias": False,
    "ffn_bias": False,
    "output_bias": "none",
}
# Of the vocabularies that T5, mT5, ByT5 and UMT5 were trained with; T5X starts and pads with 0.
IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": 0, "decoder_start_id": 0}
POSITIONS = {"relative_max_distance": 128}
ASSUMED = ("max_length", "norm_epsilon", *POSITIONS, *DROPOUTS, *IDS)
WHAT = "this T5X checkpoint cannot be read"
ASK = (
    "what its feed-forward computes is not in the arrays: give --activation (gelu_tanh is what "
    "T5X calls gelu; T5 v1.0 has relu, UL2 silu, the others gelu_tanh), or --config with its gin "
    "file"
)
OTHERS = (
    "--config is of another library ({}, ...), and of T5X its gin file is read; flags such as "
    "--activation give fields of ours, and so does a config.json of ours"
)
TIES = {
    (False, False): "all",
    (False, True): "source_target",
    (True, False): "target_output",
    (True, True): "none",
}  # (own tables, own output)


def reading_of(source: Source) -> Reading:
    """Config and notes; everything that is wrong or not said in one UserError."""
    faults, gin = Faults(), GinSettings(source.settings)
    gin.check(faults)
    others = sorted((source.settings or {}).keys() - {GIN, STEP})
    faults.require(not others, OTHERS.format(", ".join(others[:3])))
    axis = gin.one("axis", faults)
    faults.require(
        axis in (None, 0, 1), f"its gin file puts layers along axis {axis!r}; 0 and 1 are read"
    )
    check_form(source.tensors, axis, faults)
    faults.raise_if_any(WHAT)
    form = Form.of(source.tensors, axis)
    shapes = Shapes(source, form, faults)
    told = SEMANTICS | shapes.fields() | POSITIONS | IDS | {"max_length": MAX_LENGTH}
    told |= _said_by_gin(gin, told, form, faults)
    told |= dict.fromkeys(DROPOUTS, source.flags.get("dropout", told["dropout"]))
    values = with_flags(told, source.flags, ASSUMED, faults)
    faults.require("activation" in values or bool(gin.all("activations")), ASK)
    faults.raise_if_any(WHAT)
    return Reading(TransformerConfig.from_dict(values), _notes(source, gin))


def _said_by_gin(
    gin: GinSettings, told: dict[str, Any], form: Form, faults: Faults
) -> dict[str, Any]:
    """Fields that the arrays do not say; a fault for those of which they say something else."""
    found, dropout = dict[str, Any](), gin.dropout()
    for name in ("num_heads", "head_dim", "relative_buckets"):
        value = gin.one(name, faults)
        if value is not None and told.get(name) not in (None, value):
            faults.add(f"{name} is {told[name]} by its arrays; its gin file says {value!r}")
    tied = gin.one("logits_via_embedding", faults)
    if tied is not None and tied is form.own_output:
        has = "there" if form.own_output else "not there"
        faults.add(f"logits_via_embedding is {tied} in its gin file, and decoder.{OUTPUT} is {has}")
    farthest = gin.one("relative_max_distance", faults)
    found |= {"relative_max_distance": farthest} if farthest is not None else {}
    activation = gin.activation(form.gated, faults)
    found |= {"activation": activation} if activation else {}
    return found | {"dropout": DROPOUT if dropout is None else dropout}


def _notes(source: Source, gin: GinSettings) -> list[str]:
    """What was taken as usual, since neither arrays nor settings say it."""
    usual = {
        f"dropout {DROPOUT}": "dropout" not in source.flags and gin.dropout() is None,
        f"max_length {MAX_LENGTH}": "max_length" not in source.flags,
        ", ".join(f"{name} {value}" for name, value in IDS.items()): IDS.keys().isdisjoint(
            source.flags
        ),
    }
    told, step = [what for what, is_so in usual.items() if is_so], (source.settings or {}).get(STEP)
    notes = [f"not in a T5X checkpoint, and taken as usual: {'; '.join(told)}"] if told else []
    return notes + ([f"trained for {step} steps, which --to t5x says again"] if step else [])


class Shapes:
    """Sizes of a model by its arrays; what is missing or does not fit together is a fault."""

    def __init__(self, source: Source, form: Form, faults: Faults) -> None:
        self.tensors, self.form, self.faults = source.tensors, form, faults

    def fields(self) -> dict[str, Any]:
        form = self.form
        source_words, width = self._of(form.table("encoder"), 2)
        target_words, _ = self._of(form.table("decoder"), 2)
        heads, buckets = self._layer(form.bias("encoder"), 2, form.per_layer)
        tied = TIES[form.own_tables, form.own_output]
        scaled = tied in ("all", "target_output")
        return {
            "source_vocab_size": source_words,
            "target_vocab_size": target_words,
            "hidden_dim": width,
            "inner_dim": self._layer(f"{form.first('encoder')}mlp.{form.inner}.kernel", 2)[1],
            "num_heads": heads,
            "head_dim": self._head(heads),
            "num_encoder_layers": layers_of(self.tensors, form, "encoder"),
            "num_decoder_layers": layers_of(self.tensors, form, "decoder"),
            "relative_buckets": buckets,
            "relative_per_layer": form.per_layer,
            "gated_ffn": form.gated,
            "tied_embeddings": tied,
            "output_scale": float(width) ** -0.5 if scaled else 1.0,
        }

    def _head(self, heads: int) -> int:
        """The width of one head."""
        name = f"{self.form.first('encoder')}{SELF['encoder']}.query.kernel"
        if self.form.heads_apart:
            return self._layer(name, 3)[2]
        joined = self._layer(name, 2)[1]
        self.faults.require(
            joined % heads == 0, f"{name!r} gives {joined} columns, which are not for {heads} heads"
        )
        return max(joined // heads, 1)

    def _layer(self, name: str, rank: int, in_layer: bool = True) -> tuple[int, ...]:
        """The shape of an array of one layer, which may be stacked with those of others."""
        half = name.partition(".")[0]
        if half not in self.form.stacked or not in_layer:
            return self._of(name, rank)
        shape = self._of(name, rank + 1)
        return (*shape[: self.form.axis], *shape[self.form.axis + 1 :])

    def _of(self, name: str, rank: int) -> tuple[int, ...]:
        """A shape of some length, with ones where the array is none such."""
        header: Header | None = self.tensors.get(name)
        if header is None or len(header.shape) != rank or 0 in header.shape:
            found = f"it is {header}" if header else "it is missing"
            self.faults.add(f"{name!r} should have {rank} axes; {found}", "are not as they should")
            return (1,) * rank
        return header.shape
