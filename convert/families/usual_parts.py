"""What most families lack: parts of T5's that a config can ask for."""

from __future__ import annotations

from typing import Any

from transformer_spec import Faults, TransformerConfig

USUAL: dict[str, Any] = {
    "norm": "layer",
    "gated_ffn": False,
    "output_scale": 1.0,
    "final_dropout": 0.0,
    "dropout_after_norm": False,
}


def check_usual_parts(config: TransformerConfig, name: str, faults: Faults) -> None:
    """Add a fault for each part that a family without them cannot hold."""
    for field, value in USUAL.items():
        given = getattr(config, field)
        faults.require(given == value, f"{field} is {given!r}; {name} has {value!r} only")
    faults.require(
        config.attention_output_bias == config.attention_bias,
        f"attention_output_bias is {config.attention_output_bias!r} and attention_bias "
        f"{config.attention_bias!r}; {name} has both or neither",
    )
    width, heads, D = config.head_dim, config.num_heads, config.hidden_dim
    faults.require(
        width * heads == D,
        f"head_dim is {width}; {name} cuts hidden_dim {D} into num_heads {heads} parts",
    )
