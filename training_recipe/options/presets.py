"""Settings that go well together, as plain data in the form of a recipe: table, setting, value."""

from __future__ import annotations

from typing import Any

from training_recipe.corpora.named import CMUDICT

DICTIONARY_PRESET, DATA_PRESET, FINETUNING_PRESET = "tiny", "small", "finetune"

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Sized for the built-in dictionary on two CPU cores: a few minutes, short words, no dropout
    # because so few passes over the data do not overfit.
    "tiny": {
        "model": {
            "hidden_dim": 128,
            "inner_dim": 256,
            "num_heads": 4,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "max_length": 64,
            "norm_position": "pre",
            "tied_embeddings": "target_output",
            "dropout": 0.0,
        },
        "optimisation": {
            "steps": 2600,
            "batch_tokens": 1024,
            "batch_shapes": 5,
            "peak_lr": 3e-3,
            "warmup_steps": 260,
            "schedule": "linear",
        },
        "evaluation": {"evaluate_every": 1300, "valid_examples": 300, "beam": 5},
        "run": {"save_every": 1300},
    },
    "small": {
        "model": {
            "hidden_dim": 256,
            "inner_dim": 1024,
            "num_heads": 4,
            "num_encoder_layers": 3,
            "num_decoder_layers": 3,
            "max_length": 128,
            "norm_position": "pre",
            "tied_embeddings": "target_output",
        },
        "optimisation": {
            "steps": 20000,
            "batch_tokens": 2048,
            "peak_lr": 1e-3,
            "warmup_steps": 1000,
            "schedule": "cosine",
        },
    },
    # The preset tiny with what T5 1.1 has in place of sinusoids, LayerNorm, ReLU and biases:
    # relative positions (Raffel et al. 2020), RMSNorm and a gate (Shazeer 2020); as many weights.
    # Embeddings and scores are scaled as ever: T5's own scales of 1 go with an optimizer whose
    # steps are shares of the weights; with AdamW a third more words are wrong after as many steps.
    "tiny-t5": {
        "model": {
            "hidden_dim": 128,
            "inner_dim": 176,
            "num_heads": 4,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "max_length": 64,
            "norm_position": "pre",
            "activation": "gelu_tanh",
            "gated_ffn": True,
            "norm": "rms",
            "norm_epsilon": 1e-6,
            "encoder_positions": "relative",
            "decoder_positions": "relative",
            "attention_bias": False,
            "ffn_bias": False,
            "output_bias": "none",
            "tied_embeddings": "target_output",
            "dropout": 0.0,
        },
        "optimisation": {
            "steps": 2600,
            "batch_tokens": 1024,
            "batch_shapes": 5,
            "peak_lr": 3e-3,
            "warmup_steps": 260,
            "schedule": "linear",
        },
        "evaluation": {"evaluate_every": 1300, "valid_examples": 300, "beam": 5},
        "run": {"save_every": 1300},
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
    # For the model of --init, on a few thousand to a few hundred thousand pairs. The optimizer's
    # settings are the defaults of the Trainer of transformers, which such models are trained by.
    "finetune": {
        "optimisation": {
            "steps": 2000,
            "batch_tokens": 2048,
            "peak_lr": 5e-5,
            "warmup_steps": 0,
            "schedule": "linear",
            "label_smoothing": 0.0,
            "clip_norm": 1.0,
            "weight_decay": 0.0,
            "adam_beta1": 0.9,
            "adam_beta2": 0.999,
            "adam_eps": 1e-8,
        },
        "evaluation": {"evaluate_every": 250},
        "run": {"save_every": 250},
    },
}


def preset_for(data: str, init: str | None = None) -> str:
    """The preset where none is named: only the dictionary has one tuned to it.

    ``init`` is the folder whose model is to be trained on, if there is one.
    """
    if init is not None:
        return FINETUNING_PRESET
    return DICTIONARY_PRESET if data == CMUDICT else DATA_PRESET
