"""Sizes that go well together, as plain data in the form of a recipe: table, setting, value."""

from __future__ import annotations

from typing import Any

DEFAULT_PRESET = "small"

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "model": {
            "hidden_dim": 64,
            "inner_dim": 256,
            "num_heads": 4,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "max_length": 128,
        },
    },
    "small": {
        "model": {
            "hidden_dim": 128,
            "inner_dim": 512,
            "num_heads": 4,
            "num_encoder_layers": 3,
            "num_decoder_layers": 3,
            "max_length": 256,
        },
    },
    # The base model of Vaswani et al. 2017, table 3.
    "base": {
        "model": {
            "hidden_dim": 512,
            "inner_dim": 2048,
            "num_heads": 8,
            "num_encoder_layers": 6,
            "num_decoder_layers": 6,
            "max_length": 512,
        },
        "optimisation": {"peak_lr": 7e-4, "warmup_steps": 4000},
    },
}
