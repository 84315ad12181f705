"""The config of a torch.nn.Transformer: what its tensors show, what must be said, what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.core.tensors import Tensors, as_bytes
from convert.families.base import Source
from convert.families.torch_nn.wrapper import HALVES, Layout, depth
from convert.families.usual_parts import check_usual_parts
from transformer_spec import RELATIVE, STORED, Faults, TransformerConfig, tied_weights

CLASS = "torch.nn.Transformer"
SOURCE_TABLE, TARGET_TABLE = "encoder.embedding.weight", "decoder.embedding.weight"
OUTPUT_TABLE = "decoder.finalFc.weight"
TABLES = (SOURCE_TABLE, TARGET_TABLE, OUTPUT_TABLE)
TIES = {
    (False, False): "target_output",
    (False, True): "none",
    (True, False): "all",
    (True, True): "source_target",
}  # (one table for both halves, own output)

# What neither names nor shapes show, and what to give.
GIVEN = {
    "num_heads": "nhead of nn.Transformer, which is 8 where your code does not say",
    "activation": "activation of nn.Transformer, which is relu where your code does not say",
    "norm_position": "pre for norm_first=True, post for norm_first=False, which is the default",
    "embedding_scale": "the factor that your module puts on embeddings: 1, or sqrt(hidden_dim)",
    "encoder_positions": "sinusoidal or none; --map encoder.pos_embedding=NAME if stored",
    "decoder_positions": "sinusoidal or none; --map decoder.pos_embedding=NAME if stored",
    "max_length": "the longest sequence in tokens",
    "pad_id": "number of the padding token",
    "unk_id": "number of the unknown token",
    "bos_id": "number of the token that the decoder starts from",
    "eos_id": "number of the token that ends a sentence",
}
ASSUMED = ("norm_epsilon", "dropout")
ASSUMED_WITH_SINUSOIDS = ("sinusoid_layout", "sinusoid_frequency", "position_offset")

ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "functools.partial(torch.nn.functional.gelu, approximate='tanh')",
    "gelu_sigmoid": "lambda x: x * torch.sigmoid(1.702 * x)",
    "silu": "torch.nn.functional.silu",
    "identity": "lambda x: x",
}
AROUND = (
    "source_vocab_size", "target_vocab_size", "max_length", "embedding_scale", "encoder_positions",
    "decoder_positions", "sinusoid_layout", "sinusoid_frequency", "position_offset",
    "positions_skip_padding", "embedding_norm", "final_norm", "output_bias", "tied_embeddings",
    "attention_dropout", "activation_dropout", "pad_id", "unk_id", "bos_id", "eos_id",
    "decoder_start_id",
)  # fmt: skip


def config_of(source: Source, layout: Layout, faults: Faults) -> TransformerConfig:
    """The config that tensors and flags say together; ``faults`` are raised with those found."""
    deduced = {} if faults.messages else _deduced(source, layout, faults)
    _check_given(source, layout, faults)
    for name, shown in deduced.items():
        given = source.flags.get(name, shown)
        if given != shown and (name, given, shown) != ("output_bias", "frozen", "trained"):
            faults.add(f"{name} is given as {given!r}; the tensors show {shown!r}")
    faults.raise_if_any("this torch.nn.Transformer cannot be read")
    rate = source.flags.get("dropout", 0.1)
    one_rate = {"dropout": rate, "attention_dropout": rate, "activation_dropout": rate}
    return TransformerConfig.from_dict({**one_rate, **deduced, **source.flags})


def _check_given(source: Source, layout: Layout, faults: Faults) -> None:
    """Name every setting that is neither given nor shown by a table of learned positions."""
    tables = {half: f"{half}.pos_embedding.weight" in layout.tensors for half in HALVES}
    shown = {f"{half}_positions" for half in HALVES if tables[half]}
    shown |= {"max_length"} if any(tables.values()) else set()
    for name, what in GIVEN.items():
        if name not in source.flags and name not in shown:
            faults.add(f"{name} is not given and cannot be seen: {what}")
    for half in HALVES:
        kind = source.flags.get(f"{half}_positions")
        if kind in STORED and not tables[half]:
            faults.add(f"{half}_positions is {kind}: --map {half}.pos_embedding=NAME says where")


def _deduced(source: Source, layout: Layout, faults: Faults) -> dict[str, Any]:
    """The fields that names and shapes show."""
    given = source.tensors
    embeddings = [layout.tensors[SOURCE_TABLE], layout.tensors[TARGET_TABLE]]
    if any(len(given[name].shape) != 2 for name in embeddings):
        shapes = ", ".join(f"{name} {list(given[name].shape)}" for name in embeddings)
        faults.add(f"embeddings are tables (words, width), not {shapes}")
        return {}
    (source_words, width), (target_words, _) = (given[name].shape for name in embeddings)
    return {
        "source_vocab_size": source_words,
        "target_vocab_size": target_words,
        "hidden_dim": width,
        **_stacks(given, layout, faults),
        **_positions(source, layout, faults),
        "embedding_norm": _both_or_none(
            [f"{half}.embedding_norm.weight" in layout.tensors for half in HALVES],
            "encoder.embedding_norm and decoder.embedding_norm",
            faults,
        ),
        "output_bias": "trained" if "decoder.finalFc.bias" in layout.tensors else "none",
        "tied_embeddings": _tied(source, layout, faults),
    }


def _stacks(given: Tensors, layout: Layout, faults: Faults) -> dict[str, Any]:
    """The fields that the two stacks of layers show."""
    prefixes = {half: layout.prefix(half) for half in HALVES}
    inside = [name for name in given if name.startswith(tuple(prefixes.values()))]
    for name in inside:
        if name.endswith((".bias_k", ".bias_v")):
            faults.add(f"{name}: of add_bias_kv=True; our attention has no such key or value")
    widths = [given[name].shape[0] for name in inside if name.endswith(".linear1.weight")]
    faults.require(bool(widths), "no linear1.weight in either stack")
    return {
        "inner_dim": widths[0] if widths else 0,
        **{f"num_{half}_layers": depth(given, prefix) for half, prefix in prefixes.items()},
        "attention_bias": any(name.endswith(".in_proj_bias") for name in inside),
        "ffn_bias": any(name.endswith(".linear1.bias") for name in inside),
        "final_norm": _both_or_none(
            [f"{prefix}norm.weight" in given for prefix in prefixes.values()],
            " and ".join(f"{prefix}norm" for prefix in prefixes.values()),
            faults,
        ),
    }


def _both_or_none(there: list[bool], names: str, faults: Faults) -> bool:
    faults.require(len(set(there)) == 1, f"{names}: one is there; our model has both or none")
    return all(there)


def _positions(source: Source, layout: Layout, faults: Faults) -> dict[str, Any]:
    """What tables of positions show, learned unless told; both have the same rows in our model."""
    rows = {}
    for half in HALVES:
        theirs = layout.tensors.get(f"{half}.pos_embedding.weight")
        if theirs is not None:
            shape = list(source.tensors[theirs].shape)
            shape.pop(layout.axes.get(theirs, -1))
            rows[half] = shape[0] if shape else 0
    if len(set(rows.values())) > 1:
        faults.add(f"encoder and decoder positions have {rows} rows; our model has one max_length")
    given = {half: source.flags.get(f"{half}_positions") for half in rows}
    found: dict[str, Any] = {
        f"{half}_positions": kind if kind in STORED else "learned" for half, kind in given.items()
    }
    if rows:
        found["max_length"] = min(rows.values()) - source.flags.get("position_offset", 0)
    return found


def _tied(source: Source, layout: Layout, faults: Faults) -> str:
    """Which tables are one: stored once, or, unless the flag says so, stored with equal bytes."""
    given, tensors = source.flags.get("tied_embeddings"), source.tensors
    encoder, decoder, output = (layout.tensors.get(name) for name in TABLES)
    if given is None:
        own = output is not None and not _same(tensors, decoder, output)
        both = _same(tensors, encoder, decoder)
        return TIES[both, own]
    if given in ("none", "source_target") and output is None:
        faults.add(f"tied_embeddings is given as {given!r}; no weight of decoder.finalFc is stored")
    if given == "target_output" and encoder == decoder:
        faults.add("tied_embeddings is given as 'target_output'; one table serves all: 'all'")
    return given


def _same(tensors: Tensors, one: str | None, other: str | None) -> bool:
    """Whether two names stand for one table: the only question that needs the bytes."""
    if one is None or other is None or one == other:
        return one == other
    if tensors[one] != tensors[other]:
        return False
    return np.array_equal(as_bytes(tensors.read(one)), as_bytes(tensors.read(other)))


def notes_of(source: Source, layout: Layout, config: TransformerConfig) -> list[str]:
    """What was taken without being given, and what was not looked at."""
    sinusoidal = "sinusoidal" in (config.encoder_positions, config.decoder_positions)
    names = ASSUMED + (ASSUMED_WITH_SINUSOIDS if sinusoidal else ())
    taken = [f"{name} {getattr(config, name)!r}" for name in names if name not in source.flags]
    taken += _equal_tables(source, layout, config)
    notes = [f"not given and taken as usual: {', '.join(taken)}"] if taken else []
    one = layout.tensors[SOURCE_TABLE] == layout.tensors[TARGET_TABLE]
    if one and config.tied_embeddings not in ("all", "source_target"):
        notes.append(f"{layout.tensors[SOURCE_TABLE]} serves both halves; kept as two tables")
    if source.settings and CLASS not in source.settings:
        notes.append(f"the module's own settings are not read: {', '.join(source.settings)}")
    return notes


def _equal_tables(source: Source, layout: Layout, config: TransformerConfig) -> list[str]:
    """Tables that are taken for one since their numbers are the same, and that may be two."""
    if "tied_embeddings" in source.flags:
        return []
    equal = list[str]()
    for names in tied_weights(config).items():
        theirs = {layout.tensors[name] for name in names if name in layout.tensors}
        places = {source.tensors.place(name) for name in theirs}
        if len(theirs) == 2 and (len(places) == 2 or None in places):
            equal.append(" and ".join(sorted(theirs)))
    if not equal:
        return []
    same = f"{', '.join(equal)} hold the same numbers"
    return [f"tied_embeddings {config.tied_embeddings!r} ({same}; 'none' trains them apart)"]


def check_export(config: TransformerConfig) -> None:
    """Raise one UserError with every setting that nn.Transformer cannot have."""
    faults = Faults()
    scale = 1 / math.sqrt(config.head_dim)
    faults.require(
        config.attention_scale == scale,
        f"attention_scale is {config.attention_scale!r}; nn.Transformer has 1/sqrt(head) {scale!r}",
    )
    faults.require(
        config.attention_bias == config.ffn_bias,
        f"attention_bias is {config.attention_bias!r} and ffn_bias {config.ffn_bias!r}; "
        "nn.Transformer has one bias=True or False for both",
    )
    check_usual_parts(config, "nn.Transformer", faults)
    for half in HALVES:
        layers, kind = f"num_{half}_layers", getattr(config, f"{half}_positions")
        other = f"{half}_positions is {kind!r}, which nn.Transformer has not"
        faults.require(kind != RELATIVE, other)
        faults.require(getattr(config, layers) > 0, f"{layers} is 0; it must be at least 1")
    faults.raise_if_any("torch.nn.Transformer cannot hold this model")


def arguments(config: TransformerConfig) -> dict[str, Any]:
    """The arguments of nn.Transformer; an activation that is no name is a Python expression."""
    return {
        "d_model": config.hidden_dim,
        "nhead": config.num_heads,
        "num_encoder_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "dim_feedforward": config.inner_dim,
        "dropout": config.dropout,
        "activation": ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "batch_first": True,
        "norm_first": config.norm_position == "pre",
        "bias": config.attention_bias,
    }


def told(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields that the settings say which this family itself has written, if there are any."""
    given = (settings or {}).get(CLASS)
    if not isinstance(given, Mapping):
        return {}
    names = {expression: ours for ours, expression in ACTIVATIONS.items()}
    fields = {
        "num_heads": given.get("nhead"),
        "activation": names.get(str(given.get("activation"))),
        "norm_epsilon": given.get("layer_norm_eps"),
        "norm_position": "pre" if given.get("norm_first") else "post",
        "dropout": given.get("dropout"),
    }
    outside = (settings or {}).get("wrapper")
    outside = outside if isinstance(outside, Mapping) else {}
    fields |= {name: outside[name] for name in AROUND if name in outside}
    return {name: value for name, value in fields.items() if value is not None}


def around(config: TransformerConfig) -> dict[str, Any]:
    """What the module around nn.Transformer has to do, in the terms of our config."""
    return {name: getattr(config, name) for name in AROUND}
