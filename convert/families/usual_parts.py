"""What most families lack: parts of T5's and of Whisper's that a config can ask for."""

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
    """Add a fault for each part that a family of text without them cannot hold."""
    check_text_parts(config, name, faults)
    check_common_parts(config, name, faults)


def check_text_parts(config: TransformerConfig, name: str, faults: Faults) -> None:
    """Add a fault for each part of Whisper's."""
    M, longest = config.feature_dim, config.max_source_length
    faults.require(M == 0, f"feature_dim is {M}; {name} takes tokens, and has 0 only")
    faults.require(
        longest == config.max_length,
        f"max_source_length is {longest} and max_length {config.max_length}; {name} has one for "
        "both halves",
    )
    faults.require(
        config.key_bias == config.attention_bias,
        f"key_bias is {config.key_bias!r} and attention_bias {config.attention_bias!r}; {name} has "
        "both or neither",
    )


def check_common_parts(config: TransformerConfig, name: str, faults: Faults) -> None:
    """Add a fault for each part of T5's."""
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
