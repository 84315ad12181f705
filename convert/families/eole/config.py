"""eole's config.json and vocab.json as the options and the vocabulary of OpenNMT-py.

What the settings do was read from eole 0.5.3: config/models.py, modules/embeddings.py,
encoders/transformer.py, decoders/transformer.py, modules/multi_headed_attn.py, inputters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from convert.families.base import Settings
from convert.families.opennmt.config import LAYOUTS, SPECIALS

PARTS = ("encoder", "decoder", "embeddings")
STACKS = PARTS[:2]
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu-tanh": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "silu": "silu",
}
TOKENS = {
    "pad_id": "pad_token",
    "unk_id": "unk_token",
    "bos_id": "bos_token",
    "eos_id": "eos_token",
}

# Settings of both halves that may have these values alone; the first is eole's own.
ONLY: dict[str, tuple[Any, ...]] = {
    "layer_norm": ("standard", "standardFP32"),
    "relative_positions_buckets": (0,),
    "sliding_window": (0,),
    "rope_config": (None, {}),
    "attn_scaling": (None,),
    "num_experts": (0,),
    "encoder_layer_style": ("standard",),
    "final_encoder_layer_norm": (True,),
    "layer_types": (None,),
    "coverage_attn": (False,),
    **dict.fromkeys(
        (
            "shared_layer_norm", "ffn_layernorm", "query_norm", "key_norm", "value_norm",
            "qk_norm_post_rope", "parallel_residual", "q_gating",
        ),
        (False,),
    ),
}  # fmt: skip
# Of the model as a whole, and of its embeddings.
MODEL: dict[str, tuple[Any, ...]] = {
    "architecture": ("transformer", "custom"),
    "generator_function": ("softmax",),
    "add_estimator": (False,),
    "left_pad": (False,),
}
EMBEDDINGS: dict[str, tuple[Any, ...]] = {
    "embedding_type": ("standard",),
    "normalize": (False, None),
    "position_shift": (0, None),
    "embedding_layer_norm": (False,),
}
# What other architectures read, what shapes the training alone, and what eole itself never reads
# (position_encoding: the type of positions counts).
HARMLESS = frozenset(
    """
    aan_useffn adapter_bias alignment_heads alignment_layer context_gate decoder_type
    encoder_type eole_version estimator_type first_k_dense_replace freeze_word_vecs_dec
    freeze_word_vecs_enc full_context_alignment generator_bias global_attention
    global_attention_function global_head_dim global_heads_kv huggingface_model input_feed
    interpolate_mode lambda_align lambda_coverage linear_conv_kernel_dim linear_key_head_dim
    linear_num_key_heads linear_num_value_heads linear_value_head_dim LM_type
    max_position_embeddings moe_renormalize moe_softmax_after moe_transformer_ff n_positions
    num_experts_per_tok num_shared_experts position_encoding projector_activation_fn
    shared_expert_gate spatial_merge_size token_type_vocab_size with_cross_attn
    """.split()
)


def is_eole(settings: Mapping[str, Any]) -> bool:
    """Whether a config.json is eole's: a model with an architecture or parts, and no version."""
    model = settings.get("model")
    parts = {"architecture", *PARTS}
    has_parts = isinstance(model, Mapping) and bool(parts & model.keys())
    return has_parts and "format_version" not in settings


class Model:
    """The settings under ``model``: a half's own count before those of the model as a whole."""

    def __init__(self, values: Mapping[str, Any], settings: Settings) -> None:
        self.whole = {name: value for name, value in values.items() if name not in PARTS}
        parts = {part: values.get(part) for part in PARTS}
        self.parts = {p: dict(v) if isinstance(v, Mapping) else {} for p, v in parts.items()}
        self.settings = settings
        self.seen: set[str] = set(HARMLESS)

    def of(self, part: str, name: str, default: Any = None) -> Any:
        self.seen.add(name)
        return self.parts[part].get(name, self.whole.get(name, default))

    def both(self, name: str, default: Any = None) -> Any:
        """A setting that our model has once for both halves."""
        encoder, decoder = (self.of(half, name, default) for half in STACKS)
        if encoder != decoder:
            self.settings.faults.add(
                f"{name} is {encoder!r} in the encoder and {decoder!r} in the decoder; our model "
                "has one for both"
            )
        return encoder

    def only(self, part: str, name: str, *allowed: Any) -> None:
        value = self.of(part, name, allowed[0])
        if value not in allowed:
            wanted = " or ".join(map(repr, allowed))
            self.settings.faults.add(f"{name} is {value!r}; only {wanted} can be expressed")

    def finish(self) -> None:
        """Name what nobody asked for."""
        names = {*self.whole, *(name for part in self.parts.values() for name in part)}
        for name in sorted(names - self.seen):
            if name in self.settings.ignored:
                self.settings.notes.append(f"{name} is ignored, as --ignore-setting says")
                continue
            self.settings.faults.add(
                f"{name} of the model is not known; what it does is not kept, unless "
                f"--ignore-setting {name} says that it does nothing",
                "settings are not known",
            )


def options_of(config: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The options with which OpenNMT-py computes the same; faults are added to ``settings``."""
    values = config.get("model")
    model = Model(values if isinstance(values, Mapping) else {}, settings)
    _check(model)
    qkv = model.both("add_qkvbias", False)
    for half in STACKS:
        model.only(half, "add_final_linear_bias", qkv)
        model.only(half, "add_key_bias", None, qkv)
        model.only(half, "heads_kv", None, model.of(half, "heads"))
    options = {
        "heads": model.both("heads", 8),
        "transformer_ff": model.both("transformer_ff", 2048),
        "hidden_size": model.both("hidden_size", 512),
        "norm_eps": _norm_eps(model),
        "add_qkvbias": qkv,
        "add_ffnbias": model.both("add_ffnbias", False),
        "share_embeddings": model.of("embeddings", "share_embeddings", False),
        "share_decoder_embeddings": model.of("embeddings", "share_decoder_embeddings", False),
        "enc_layers": model.of("encoder", "layers", 2),
        "dec_layers": model.of("decoder", "layers", 2),
    }
    model.only("encoder", "head_dim", None, _head_dim(options))
    options |= _words(model) | _positions(model) | _rates(config) | _vocabulary(config)
    model.finish()
    return options


def _norm_eps(model: Model) -> float:
    """That of every norm; a file says it only where it was set, and the usual one has changed."""
    found, version = model.both("norm_eps"), str(model.whole.get("eole_version", "none"))
    if found is None and re.match(r"0\.[01](\D|$)|none$", version):
        model.settings.notes.append(
            f"norm_eps is not said, and taken as 1e-05; eole before 0.2 had 1e-06 (eole_version: "
            f"{version})"
        )
    return 1e-5 if found is None else found


def activation_of(config: Mapping[str, Any], settings: Settings) -> str:
    values = config.get("model")
    name = Model(values if isinstance(values, Mapping) else {}, settings).both(
        "mlp_activation_fn", "relu"
    )
    if name not in ACTIVATIONS:
        wanted = ", ".join(ACTIVATIONS)
        settings.faults.add(f"mlp_activation_fn is {name!r}; only {wanted} can be expressed")
    return ACTIVATIONS.get(name, "relu")


def _check(model: Model) -> None:
    for name, allowed in ONLY.items():
        for half in STACKS:
            model.only(half, name, *allowed)
    for name, allowed in (MODEL | EMBEDDINGS).items():
        model.only("embeddings", name, *allowed)
    model.seen.add("mlp_activation_fn")  # activation_of


def _head_dim(options: Mapping[str, Any]) -> int | None:
    width, heads = options["hidden_size"], options["heads"]
    numbers = isinstance(width, int) and isinstance(heads, int) and heads > 0
    return width // heads if numbers else None


def _words(model: Model) -> dict[str, Any]:
    names = ("word_vec_size", "src_word_vec_size", "tgt_word_vec_size")
    return {name: size for name in names if (size := model.of("embeddings", name)) is not None}


def _positions(model: Model) -> dict[str, Any]:
    """Without a type there are no positions, and embeddings are not scaled."""
    kind = model.of("embeddings", "position_encoding_type", "SinusoidalInterleaved")
    if kind is not None and kind not in LAYOUTS:
        wanted = " or ".join((*map(repr, LAYOUTS), "null"))
        model.settings.faults.add(
            f"position_encoding_type is {kind!r}; only {wanted} can be expressed"
        )
    known = {"position_encoding_type": kind} if kind in LAYOUTS else {}
    return {"position_encoding": kind is not None} | known


def _rates(config: Mapping[str, Any]) -> dict[str, Any]:
    training = config.get("training")
    given = training if isinstance(training, Mapping) else {}
    return {name: given[name] for name in ("dropout", "attention_dropout") if name in given}


def _vocabulary(config: Mapping[str, Any]) -> dict[str, Any]:
    """Token lists in which the special tokens have the names of OpenNMT-py."""
    vocab = config.get("vocab")
    if not isinstance(vocab, Mapping):
        return {}
    specials = vocab.get("specials")
    given = specials if isinstance(specials, Mapping) else {}
    names = {given.get(TOKENS[ours], token): token for ours, token in SPECIALS.items()}
    sides = {side: vocab.get(side) for side in ("src", "tgt")}
    lists = {
        side: [names.get(word, word) for word in words]
        for side, words in sides.items()
        if isinstance(words, list)
    }
    start = vocab.get("decoder_start_token") or SPECIALS["bos_id"]
    return {"vocab": lists, "decoder_start_token": names.get(start, start)}
