"""fairseq's settings as a config of ours.

What they do was read from fairseq 0.12.2: models/transformer/, modules/transformer_layer.py,
modules/sinusoidal_positional_embedding.py, data/dictionary.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from convert.families.base import Reading, Settings, Source
from convert.families.fairseq.settings import HARMLESS
from convert.families.given import with_flags
from transformer_spec import TransformerConfig, UserError

HALVES = ("encoder", "decoder")
ARCHITECTURES = ("transformer", "bart", "mbart")
# What the names of other models begin with in fairseq itself.
OTHER_MODELS = (
    "bert_", "camembert", "cmlm_transformer", "convtransformer", "fastspeech2", "fconv", "gottbert",
    "hf_gpt2", "hubert", "insertion_transformer", "iterative_nonautoregressive",
    "levenshtein_transformer", "lightconv", "lstm", "masked_lm", "multilingual_transformer",
    "multires_hubert", "nacrf_transformer", "nonautoregressive_transformer", "roberta", "s2spect",
    "s2t_", "s2ut_", "speech_dlm", "tacotron", "transformer_from_pretrained_xlm",
    "transformer_lm", "transformer_ulm", "tts_transformer", "unity_", "wav2vec", "xlm",
    "xm_transformer", "xmod",
)  # fmt: skip
POSITIONS = 1024  # DEFAULT_MAX_SOURCE_POSITIONS and DEFAULT_MAX_TARGET_POSITIONS
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "swish": "silu",
    "linear": "identity",
}
# The first version whose model ends with a norm after the last layer; a missing mark counts as 1.
FIRST_WITH_NORM = {"encoder": 2, "decoder": 3}

# What fairseq computes whatever the settings; its dictionary begins with <s>, <pad>, </s>, <unk>,
# and its decoder starts from </s>.
FAIRSEQ: dict[str, Any] = {
    "norm_epsilon": 1e-5,
    "sinusoid_layout": "concatenated",
    "sinusoid_frequency": "i/(d/2-1)",
    "position_offset": 2,
    "positions_skip_padding": True,
    "output_bias": "none",
    "bos_id": 0,
    "pad_id": 1,
    "eos_id": 2,
    "unk_id": 3,
    "decoder_start_id": 2,
}
ASSUMED = (
    "bos_id", "eos_id", "unk_id", "decoder_start_id", "max_length", "dropout", "attention_dropout",
    "activation_dropout", "positions_skip_padding",
)  # fmt: skip
COUNTED = (
    "positions_skip_padding is False by your word: positions are counted over every token, and no "
    "longer over those that are no padding; the same for padding at the end, another function "
    "where padding comes first, as in fairseq's own batches of sources; pad on the right"
)

# Settings that must be off, by what stands for it.
OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        (
            "adaptive_input", "char_inputs", "character_embeddings", "cross_self_attention",
            "layer_wise_attention", "no_cross_attention", "scale_attn", "scale_fc", "scale_heads",
            "scale_resids", "share_decoder_embeddings", "share_decoders",
            "share_encoder_embeddings", "share_encoders",
        ),
        (None, False),
    ),
    **dict.fromkeys(
        (
            "alternate_decoder_ffn_embed_dim", "alternate_ffn_embed_dim", "base_layers",
            "decoder_moe_freq", "encoder_moe_freq", "moe_freq", "quant_noise_pq",
            "quant_noise_scalar",
        ),
        (None, 0),
    ),
    **dict.fromkeys(
        (
            "adaptive_softmax_cutoff", "decoder_layers_to_keep", "decoder_xformers_att_config",
            "encoder_layers_to_keep", "encoder_xformers_att_config",
        ),
        (None,),
    ),
}  # fmt: skip


def reading_of(source: Source) -> Reading:
    """The config that settings, flags and the shapes of tables say; all faults in one UserError."""
    if source.settings is None:
        raise UserError(f"{source.tensors.label} has no settings; fairseq's stand in args or cfg")
    settings = Settings(_flat(source.settings), source.ignored)
    _check(settings)
    fields = FAIRSEQ | _sizes(settings) | _tables(settings, source) | _norms(settings, source)
    fields |= _positions(settings) | _dropouts(settings)
    name = settings.only("activation_fn", *ACTIVATIONS, default="relu")
    fields["activation"] = ACTIVATIONS.get(str(name), "relu")
    fields = with_flags(fields, source.flags, _assumed(fields), settings.faults)
    if fields["positions_skip_padding"] is False:
        settings.notes.append(COUNTED)
    settings.finish(f"the model in {source.tensors.label}")
    return Reading(TransformerConfig.from_dict(fields), settings.notes)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that 0.12 keeps in groups, under the names of a command line."""
    groups = [x for x in (*HALVES, "quant_noise") if isinstance(values.get(x), Mapping)]
    flat = {f"{x}_{name}": value for x in groups for name, value in values[x].items()}
    return {**{name: value for name, value in values.items() if name not in groups}, **flat}


def _check(settings: Settings) -> None:
    """Look at every setting that is not mapped."""
    for name, allowed in OFF.items():
        settings.only(name, *allowed)
    arch = str(settings.get("arch") or settings.get("_name") or ARCHITECTURES[0])
    if arch.startswith(OTHER_MODELS):
        settings.faults.add(
            f"arch is {arch!r}; only those of {', '.join(ARCHITECTURES)} can be expressed"
        )
    elif arch.split("_")[0] not in ARCHITECTURES:
        settings.notes.append(
            f"arch {arch!r} is none of fairseq's: names and settings are those of its transformer, "
            "whose code the model is taken to have"
        )
    for half in HALVES:
        settings.training_only(f"{half}_layerdrop", 0)
    if settings.get("lang_tok_replacing_bos_eos"):
        settings.notes.append("sentences begin with a language token: see --decoder-start-id")
    settings.ignore(HARMLESS)
    settings.ignore([name for name in settings.values if name.startswith("moe_")])


def _sizes(settings: Settings) -> dict[str, Any]:
    width = _one(settings, "embed_dim", "hidden_dim")
    for name in ("decoder_input_dim", "decoder_output_dim"):
        settings.only(name, None, width, "${model.decoder.embed_dim}")
    unscaled = settings.only("no_scale_embedding", None, True, False) is True
    scale = math.sqrt(width) if isinstance(width, int) and width > 0 else None
    return {
        "hidden_dim": width,
        "inner_dim": _one(settings, "ffn_embed_dim", "inner_dim"),
        "num_heads": _one(settings, "attention_heads", "num_heads"),
        **{f"num_{half}_layers": settings.need(f"{half}_layers") for half in HALVES},
        "embedding_scale": 1.0 if unscaled else scale,
    }


def _one(settings: Settings, name: str, ours: str, default: Any = None) -> Any:
    """A setting that both halves have and our model has once."""
    get = settings.need if default is None else lambda key: settings.get(key, default)
    encoder, decoder = (get(f"{half}_{name}") for half in HALVES)
    if None not in (encoder, decoder) and encoder != decoder:
        settings.faults.add(
            f"encoder_{name} is {encoder!r} and decoder_{name} {decoder!r}; "
            f"our model has one {ours} for both"
        )
    return encoder


def _tables(settings: Settings, source: Source) -> dict[str, Any]:
    """Sizes of vocabularies from the shapes of tables; what is tied, from two settings."""
    every, output = (
        settings.only(f"share_{name}", None, True, False) is True
        for name in ("all_embeddings", "decoder_input_output_embed")
    )
    fields: dict[str, Any] = {
        "tied_embeddings": "all" if every else "target_output" if output else "none"
    }
    names = [f"{half}.embed_tokens.weight" for half in HALVES]
    there = [name for name in names if name in source.tensors]
    for name, ours in zip(names, ("source_vocab_size", "target_vocab_size"), strict=True):
        found = there[0] if every and there else name
        shape = source.tensors[found].shape if found in source.tensors else ()
        settings.faults.require(len(shape) == 2, f"{name} is no table of the checkpoint")
        fields[ours] = shape[0] if len(shape) == 2 else 1
    return fields


def _norms(settings: Settings, source: Source) -> dict[str, Any]:
    for half in HALVES:
        settings.only(f"{half}_normalize_before", None, True, False)
    before = _one(settings, "normalize_before", "norm_position", False)
    embedding = settings.only("layernorm_embedding", None, True, False)
    without = settings.get("no_decoder_final_norm")
    final = before and _final_norm(settings, source)
    if without and final:
        settings.faults.add(
            f"no_decoder_final_norm is {without!r}; our model ends both halves with a norm or "
            "neither"
        )
    return {
        "norm_position": "pre" if before else "post",
        "final_norm": bool(final),
        "embedding_norm": embedding is True,
    }


def _final_norm(settings: Settings, source: Source) -> bool:
    """Whether a pre-norm model ends with norms: by the version marks, unless a flag says it.

    fairseq takes the norms out of a model whose mark is old or missing. A file with such a mark
    that has the norms all the same has lost its mark, or was never computed with them.
    """
    given = source.flags.get("final_norm")
    if given is not None:
        return given
    used = {half: _version(settings, source, half) >= FIRST_WITH_NORM[half] for half in HALVES}
    for half in HALVES:
        name = f"{half}.layer_norm.weight"
        if not used[half] and name in source.tensors:
            settings.faults.add(
                f"{half}.version is missing or below {FIRST_WITH_NORM[half]}, so fairseq computes "
                f"without the norm after the last layer, but {name} is there; say with "
                "--final-norm that norms are used, or with --no-final-norm that they are not"
            )
    if len(set(used.values())) > 1:
        with_norm = next(half for half in HALVES if used[half])
        settings.faults.add(
            f"by their versions only the {with_norm} ends with a norm; our model has both or none"
        )
    return all(used.values())


def _version(settings: Settings, source: Source, half: str) -> float:
    name = f"{half}.version"
    if name not in source.tensors:
        return 1
    array = source.tensors.read(name)
    settings.faults.require(array.size == 1, f"{name} is no single number")
    return float(array.flat[0]) if array.size == 1 else 1


def _positions(settings: Settings) -> dict[str, Any]:
    """Kinds of positions, and the longest sequence that both halves take."""
    none = settings.only("no_token_positional_embeddings", None, True, False) is True
    fields: dict[str, Any] = {}
    limits: dict[str, int] = {}
    for half, name in zip(HALVES, ("max_source_positions", "max_target_positions"), strict=True):
        learned = settings.only(f"{half}_learned_pos", None, True, False) is True
        fields[f"{half}_positions"] = "none" if none else "learned" if learned else "sinusoidal"
        limit = settings.get(name)
        whole = limit is None or isinstance(limit, int)
        settings.faults.require(whole, f"{name} is {limit!r}; it must be one whole number")
        limits[name] = limit if whole and limit is not None else POSITIONS
    tables = [x for x, half in zip(limits, HALVES, strict=True) if _learned(fields, half)]
    sizes = {limits[name] for name in tables} or {_longest(limits, settings)}
    if len(sizes) > 1:
        both = " and ".join(f"{name} {limits[name]!r}" for name in tables)
        settings.faults.add(f"{both} differ; our model has one max_length for learned positions")
    return fields | {"max_length": sizes.pop()}


def _learned(fields: Mapping[str, Any], half: str) -> bool:
    return fields[f"{half}_positions"] == "learned"


def _longest(limits: Mapping[str, int], settings: Settings) -> int:
    if len(set(limits.values())) > 1:
        settings.notes.append(f"max_length is the longest of {dict(limits)}")
    return max(limits.values())


def _dropouts(settings: Settings) -> dict[str, Any]:
    """Rates; ``relu_dropout`` is what ``activation_dropout`` was called before."""
    rates = {"dropout": 0.1, "attention_dropout": 0.0, "activation_dropout": 0.0}
    fields = {}
    for name, usual in rates.items():
        rate = settings.get(name)
        fields[name] = usual if rate is None else rate
    older = settings.get("relu_dropout")
    fields["activation_dropout"] = fields["activation_dropout"] or older or 0.0
    return fields


def _assumed(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """What a flag may replace; the rows of learned positions may not."""
    learned = any(_learned(fields, half) for half in HALVES)
    return tuple(name for name in ASSUMED if not (learned and name == "max_length"))
