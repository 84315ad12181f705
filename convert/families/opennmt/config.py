"""The config of an OpenNMT-py checkpoint: its options, its vocabulary and its tensors' shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.core.tensors import Tensors, as_bytes
from convert.families.base import Settings, Source
from convert.families.opennmt.options import ABSENT, CHECKED, ELSEWHERE, OFF, TEXT, TRAINING

EMBEDDING = "embeddings.make_embedding.emb_luts.0.weight"
SOURCE_TABLE, TARGET_TABLE = f"encoder.{EMBEDDING}", f"decoder.{EMBEDDING}"
SINUSOIDS = "embeddings.make_embedding.pe.pe"
STACKS = {"encoder": "encoder.transformer", "decoder": "decoder.transformer_layers"}
LAYOUTS = {
    "SinusoidalInterleaved": {"sinusoid_layout": "interleaved", "sinusoid_frequency": "2i/d"},
    "SinusoidalConcat": {"sinusoid_layout": "concatenated", "sinusoid_frequency": "i/(d/2-1)"},
}
# The numbers that torchtext gives: unknown, padding, begin and end come before all words.
OLD_NUMBERS = {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3, "decoder_start_id": 2}
OLD_VOCABULARY = (
    "the vocabulary is no list of words, as in version 3; its special tokens have the numbers of "
    "every vocabulary of version 2: <unk> 0, <blank> 1, <s> 2, </s> 3"
)
SPECIALS = {"pad_id": "<blank>", "unk_id": "<unk>", "bos_id": "<s>", "eos_id": "</s>"}


def config_values(source: Source, settings: Settings) -> dict[str, Any]:
    """The fields of a config; what cannot be expressed is added to the faults of ``settings``."""
    for name, allowed in CHECKED.items():
        settings.only(name, *allowed, default=allowed[0])
    settings.ignore(ABSENT | ELSEWHERE)
    values = _sizes(settings, source.tensors) | _switches(settings, source.tensors)
    values |= _positions(settings, source) | _dropout(settings)
    values |= _special_tokens(settings, values, source.flags)
    _add_flags(values, source.flags, settings)
    _note_training(settings)
    return values


def has(names: Tensors, pattern: str) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)


def generator_of(names: Tensors) -> str:
    """Version 2 has a sequence of modules there."""
    return "generator.0" if has(names, r"generator\.0\..*") else "generator"


def _sizes(settings: Settings, tensors: Tensors) -> dict[str, Any]:
    """Sizes as the shapes show them; an option that says something else is a fault."""
    source, target = (_shape(tensors, name, settings) for name in (SOURCE_TABLE, TARGET_TABLE))
    inner = f"{STACKS['encoder']}.0.feed_forward.w_1.weight"
    depths = {half: _depth(tensors, stack) for half, stack in STACKS.items()}
    sizes = {
        "source_vocab_size": source[0],
        "target_vocab_size": target[0],
        "hidden_dim": source[1],
        "inner_dim": _shape(tensors, inner, settings)[0],
        "num_heads": settings.need("heads"),
        "num_encoder_layers": depths["encoder"],
        "num_decoder_layers": depths["decoder"],
    }
    _agree(settings, ("source_vocab_size",), sizes["source_vocab_size"])
    _agree(settings, ("target_vocab_size",), sizes["target_vocab_size"])
    _agree(settings, ("transformer_ff",), sizes["inner_dim"])
    for short, half in (("enc", "encoder"), ("dec", "decoder")):
        _agree(settings, ("layers", f"{short}_layers"), depths[half])
        width = ("hidden_size", "rnn_size", f"{short}_hid_size", f"{short}_rnn_size")
        _agree(settings, width, sizes["hidden_dim"])
    for side in ("src", "tgt"):
        _agree(settings, ("word_vec_size", f"{side}_word_vec_size"), sizes["hidden_dim"])
    if settings.get("num_kv") not in (None, 0, sizes["num_heads"]):
        settings.faults.add(f"num_kv is {settings.get('num_kv')!r}; only 0 can be expressed")
    return sizes


def _shape(tensors: Tensors, name: str, settings: Settings) -> tuple[int, int]:
    """The shape of a matrix; one that is missing is a fault."""
    shape = tensors[name].shape if name in tensors else ()
    if len(shape) != 2:
        settings.faults.add(f"the matrix {name} is missing")
        return 0, 0
    return shape[0], shape[1]


def _depth(names: Tensors, stack: str) -> int:
    pattern = re.compile(re.escape(stack) + r"\.(\d+)\.")
    return max((1 + int(match[1]) for match in map(pattern.match, names) if match), default=0)


def _agree(settings: Settings, keys: tuple[str, ...], shown: int) -> None:
    """The first of the keys that is set (-1 and 0 are not) says what the tensors show."""
    values = {key: settings.get(key) for key in keys}
    for key, value in values.items():
        if value not in (None, -1, 0):
            if value != shown:
                settings.faults.add(f"{key} is {value!r}; the tensors show {shown}")
            return


def _switches(settings: Settings, tensors: Tensors) -> dict[str, Any]:
    """What is fixed in every OpenNMT-py Transformer, and what options and names switch."""
    attention_bias = has(tensors, r".*_attn\.linear_query\.bias")
    ffn_bias = has(tensors, r".*\.feed_forward\.w_1\.bias")
    told = settings.get("add_qkvbias")
    if told is not None and told != attention_bias:
        there = "are" if attention_bias else "are not"
        settings.faults.add(f"add_qkvbias is {told!r}; attention biases {there} there")
    # OpenNMT-py itself turns the option on where it finds the biases.
    if settings.get("add_ffnbias", False) and not ffn_bias:
        settings.faults.add("add_ffnbias is True; feed-forward biases are not there")
    bias = f"{generator_of(tensors)}.bias" in tensors
    return {
        "norm_position": "pre",
        "final_norm": True,
        "norm_epsilon": _number(settings, "norm_eps", settings.get("norm_eps", 1e-6)),
        "activation": settings.only("pos_ffn_activation_fn", "relu", "gelu", default="relu"),
        "attention_bias": attention_bias,
        "ffn_bias": ffn_bias,
        "output_bias": "trained" if bias else "none",
        "tied_embeddings": _tied(settings, tensors),
    }


def _tied(settings: Settings, tensors: Tensors) -> str:
    """Which tables are one; those that the options call so and that differ are a fault."""
    both, output = settings.get("share_embeddings"), settings.get("share_decoder_embeddings")
    if both and not output:
        names = [name for name in (SOURCE_TABLE, TARGET_TABLE) if name in tensors]
        stored = [tensors.read(name) for name in names]
        same = all(np.array_equal(as_bytes(table), as_bytes(stored[0])) for table in stored)
        settings.faults.require(
            same,
            f"share_embeddings is True; {SOURCE_TABLE}, {TARGET_TABLE} should be one, and differ",
        )
        return "source_target"
    return "none" if not output else "all" if both else "target_output"


def _positions(settings: Settings, source: Source) -> dict[str, Any]:
    """Both halves have sinusoids and embeddings times sqrt(D), or neither has."""
    layout = settings.only("position_encoding_type", *LAYOUTS, default="SinusoidalInterleaved")
    width = source.tensors[SOURCE_TABLE].shape[-1] if SOURCE_TABLE in source.tensors else 1
    table = f"encoder.{SINUSOIDS}"
    rows = source.tensors[table].shape[0] if table in source.tensors else None
    longest = source.flags.get("max_length", rows)
    if longest is None:
        settings.faults.add("max_length is not given, and no table of positions shows it")
    elif rows is not None and longest > rows:
        settings.faults.add(f"max_length is given as {longest}; there are {rows} positions")
    if not settings.need("position_encoding"):
        kinds, scale = dict.fromkeys(("encoder_positions", "decoder_positions"), "none"), 1.0
    else:
        kinds = dict.fromkeys(("encoder_positions", "decoder_positions"), "sinusoidal")
        scale = math.sqrt(width)
    return {
        **kinds,
        **LAYOUTS.get(layout, {}),
        "embedding_scale": scale,
        "max_length": longest or 1,
    }


def _dropout(settings: Settings) -> dict[str, Any]:
    """The rates that the model is built with: of lists, which follow dropout_steps, the first."""
    usual = settings.get("dropout", [0.0])
    rates = {"dropout": usual, "attention_dropout": settings.get("attention_dropout", usual)}
    for key, rate in rates.items():
        if isinstance(rate, list) and rate:
            if len(rate) > 1:
                settings.notes.append(f"{key} {rate} changes during training; the first is kept")
            rates[key] = rate[0]
        rates[key] = _number(settings, key, rates[key])
    return {**rates, "activation_dropout": rates["dropout"]}


def _number(settings: Settings, key: str, value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    settings.faults.add(f"{key} is {value!r}; it must be a number")
    return 0.0


def _special_tokens(
    settings: Settings, values: Mapping[str, Any], flags: Mapping[str, Any]
) -> dict[str, Any]:
    """Their numbers in the vocabularies; without vocabularies they have to be given."""
    start, vocab = settings.get("decoder_start_token", "<s>"), settings.get("vocab")
    if vocab is None:
        return {}
    sides = vocab if isinstance(vocab, Mapping) else {}
    source, target = (sides.get(side) for side in ("src", "tgt"))
    if not isinstance(source, list) or not isinstance(target, list):
        settings.notes.append(OLD_VOCABULARY)
        return {name: number for name, number in OLD_NUMBERS.items() if name not in flags}
    if sides.get("src_feats"):
        settings.faults.add("its vocabulary has source features; our model has none")
    for words, field in ((source, "source_vocab_size"), (target, "target_vocab_size")):
        if len(words) != values[field]:
            settings.faults.add(
                f"{field} is {values[field]} by the table; its vocabulary has {len(words)} words"
            )
    found = {name: target.index(token) for name, token in SPECIALS.items() if token in target}
    for name in ("pad_id", "unk_id"):
        token = SPECIALS[name]
        mine = source.index(token) if token in source else "none"
        if name in found and mine != found[name]:
            settings.faults.add(
                f"{token} is number {mine} of the source and {found[name]} of the target "
                "vocabulary; our model has one number for both"
            )
    if start in target:
        found["decoder_start_id"] = target.index(start)
    return found


def _add_flags(values: dict[str, Any], flags: Mapping[str, Any], settings: Settings) -> None:
    """Flags fill what is not known; one that says something else than the checkpoint is a fault."""
    for name, given in flags.items():
        known = values.setdefault(name, given)
        frozen = (name, given, known) == ("output_bias", "frozen", "trained")
        if frozen:
            values[name] = given
        elif given != known:
            settings.faults.add(f"{name} is given as {given!r}; the checkpoint says {known!r}")
    for name, token in SPECIALS.items():
        if name not in values:
            settings.faults.add(f"{name} is not given, and no vocabulary shows it: that of {token}")
    start = settings.get("decoder_start_token", "<s>")
    if start != "<s>" and "decoder_start_id" not in values:
        settings.faults.add(f"decoder_start_id is not given, and no vocabulary shows {start}'s")


def _note_training(settings: Settings) -> None:
    """One note for all that shaped the training, one for what prepared the text."""
    kept = {name: settings.get(name) for name in sorted(TRAINING)}
    told = [f"{name} {value!r}" for name, value in kept.items() if value not in OFF]
    if told:
        settings.notes.append(f"used in training only and not kept: {', '.join(told)}")
    texts = {name: settings.get(name) for name in sorted(TEXT)}
    told = [f"{name} {value!r}" for name, value in texts.items() if value]
    if told:
        settings.notes.append(f"text is prepared outside the model: {', '.join(told)}")
    settings.notes.append("OpenNMT-py gives the source no </s>: leave it out there too")
