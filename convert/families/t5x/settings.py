"""What a gin file says of a T5X model, as far as its arrays do not say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformer_spec import Faults, TransformerConfig

GIN, STEP = "gin", "step"
OWN = "network.T5Config"  # of T5X's examples; flaxformer's models have each module's
DROPOUT = 0.1
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "linear": "identity",
}
BIASES = "relative_position_biases.RelativePositionBiases"
FIXED = {"num_buckets": 32, "max_distance": 128}
WRITTEN = {"relu": "relu", "gelu_tanh": "gelu", "silu": "silu", "identity": "linear"}
LINEAR = "linear"
# What is asked of a gin file -> the names that it has for it.
NAMES = {
    "activations": ("mlp_activations", "activations"),
    "num_heads": ("num_heads",),
    "head_dim": ("head_dim",),
    "dropout": ("dropout_rate", "DROPOUT_RATE"),
    "logits_via_embedding": ("logits_via_embedding",),
    "axis": ("param_scan_axis", "scan_axis"),
    "relative_buckets": ("num_buckets",),
    "relative_max_distance": ("max_distance",),
    "zero_scale": ("center_scale_at_zero",),
}
LONG = ("longt5", "long_attention")


def kept_of(bindings: Mapping[str, Any]) -> dict[str, Any]:
    """The bindings that say something of the model."""
    wanted = {name for names in NAMES.values() for name in names}
    return {
        name: value
        for name, value in bindings.items()
        if name.rpartition(".")[2] in wanted or any(part in name for part in LONG)
    }


class GinSettings:
    """The bindings of a gin file; what it says in two ways is a fault, where that matters."""

    def __init__(self, settings: Mapping[str, Any] | None) -> None:
        self.bindings: Mapping[str, Any] = (settings or {}).get(GIN) or {}

    def all(self, what: str) -> list[Any]:
        """Every value that is bound to one of its names; those of T5X's own config alone if any."""
        found = {n: v for n, v in self.bindings.items() if n.rpartition(".")[2] in NAMES[what]}
        own = [value for name, value in found.items() if name.startswith(f"{OWN}.")]
        return list(dict.fromkeys(map(_hashable, own or found.values())))

    def one(self, what: str, faults: Faults) -> Any:
        """The one value; None where there is none."""
        values = self.all(what)
        if len(values) > 1:
            told = " and ".join(map(repr, values))
            faults.add(f"its gin file says {' or '.join(NAMES[what])} in several ways: {told}")
        return values[0] if len(values) == 1 else None

    def check(self, faults: Faults) -> None:
        """Add a fault for what makes it another model than the arrays' names say."""
        if True in self.all("zero_scale"):
            faults.add("center_scale_at_zero: its norms multiply by 1 + scale")
        long = next((name for name in self.bindings if any(part in name for part in LONG)), None)
        if long is not None:
            faults.add(f"it is a LongT5, whose encoder attends otherwise ({long})")

    def activation(self, gated: bool, faults: Faults) -> str | None:
        """The feed-forward's function; None where it is not said."""
        value = self.one("activations", faults)
        if value is None:
            return None
        names = [value] if isinstance(value, str) else list(value)
        known = names[:1] != [] and names[0] in ACTIVATIONS
        if not known or names[1:] != [LINEAR] * gated:
            wanted = f"(ACT, '{LINEAR}')" if gated else "(ACT,)"
            kinds = ", ".join(ACTIVATIONS)
            faults.add(f"its activations are {value!r}; with these arrays {wanted}, ACT of {kinds}")
            return None
        return ACTIVATIONS[names[0]]

    def dropout(self) -> float | None:
        """The rate of dropout, where all modules have one."""
        values = [value for value in self.all("dropout") if isinstance(value, (int, float))]
        return float(values[0]) if len(values) == 1 else None


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return repr(value) if isinstance(value, (dict, set)) else value


def bindings_of(config: TransformerConfig) -> dict[str, Any]:
    """The fields of T5X's T5Config for a model of ours, and what it has fixed where it differs."""
    activations = (WRITTEN[config.activation],) + (LINEAR,) * config.gated_ffn
    fields: dict[str, Any] = {
        "vocab_size": config.target_vocab_size,
        "emb_dim": config.hidden_dim,
        "num_heads": config.num_heads,
        "num_encoder_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "head_dim": config.head_dim,
        "mlp_dim": config.inner_dim,
        "mlp_activations": activations,
        "dropout_rate": config.dropout,
        "logits_via_embedding": config.tied_embeddings in ("all", "target_output"),
    }
    fields |= {"scan_layers": False} if config.relative_per_layer else {}
    bound = {f"{OWN}.{name}": value for name, value in fields.items()}
    told = {"num_buckets": config.relative_buckets, "max_distance": config.relative_max_distance}
    return bound | ({f"{BIASES}.{name}": x for name, x in told.items()} if told != FIXED else {})


def gin_text(bindings: Mapping[str, Any]) -> str:
    """Bindings as a gin file."""
    return "".join(f"{name} = {value!r}\n" for name, value in bindings.items())
