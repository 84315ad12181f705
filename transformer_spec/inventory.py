"""The inventory: every weight of a config by its canonical name, its shape and its first value."""

import math
import zlib

import numpy as np
from numpy.typing import DTypeLike

from transformer_spec.config import RELATIVE, STORED, TransformerConfig
from transformer_spec.leaves import leaf_kind
from transformer_spec.positions import position_rows, sinusoid_table

Shapes = dict[str, tuple[int, ...]]

OUTPUT = "decoder.finalFc.weight"
PASSING = (".fcV.weight", ".fcOut.weight", *(f".ffn.fc{i}.weight" for i in (1, 2, 3)))
CONVOLUTION_WIDTH = 3
NO_PADDING_ROW = ("pos_embedding.weight", "relative_bias.weight")


def weight_shapes(config: TransformerConfig) -> Shapes:
    """Canonical name -> shape of every stored weight; tied weights once.

    The order is that of the PyTorch twin's ``named_parameters()``, by which ``torch.optim`` numbers
    what it keeps.
    """
    shapes = all_weight_shapes(config)
    for alias in tied_weights(config):
        del shapes[alias]
    return shapes


def tied_weights(config: TransformerConfig) -> dict[str, str]:
    """Alias -> the stored name that holds its bytes."""
    if config.tied_embeddings == "none":
        return {}
    if config.tied_embeddings == "target_output":
        return {OUTPUT: "decoder.embedding.weight"}
    source = "encoder.embedding.weight"
    both = {"decoder.embedding.weight": source}
    return both if config.tied_embeddings == "source_target" else both | {OUTPUT: source}


def trained_names(config: TransformerConfig) -> list[str]:
    """The stored weights that training changes: all but frozen positions and output biases."""
    frozen = {"decoder.finalFc.bias"} if config.output_bias == "frozen" else set[str]()
    positions = {f"{half}.pos_embedding.weight" for half in ("encoder", "decoder")}
    frozen |= {name for name in positions if _is_frozen(config, name)}
    return [name for name in weight_shapes(config) if name not in frozen]


def _is_frozen(config: TransformerConfig, positions: str) -> bool:
    """Whether a table of positions is never trained."""
    return getattr(config, f"{positions.partition('.')[0]}_positions") == "frozen"


def all_weight_shapes(config: TransformerConfig) -> Shapes:
    """Canonical name -> shape, aliases of tied weights included."""
    shapes: Shapes = {}
    shapes |= _beside_layers(config, "encoder", config.source_vocab_size, config.encoder_positions)
    for i in range(config.num_encoder_layers):
        shapes |= _encoder_layer(config, f"encoder.enc_layers.{i}")
    shapes |= _beside_layers(config, "decoder", config.target_vocab_size, config.decoder_positions)
    for i in range(config.num_decoder_layers):
        shapes |= _decoder_layer(config, f"decoder.dec_layers.{i}")
    output = (config.target_vocab_size, config.hidden_dim)
    return shapes | _linear("decoder.finalFc", *output, config.output_bias != "none")


def _beside_layers(config: TransformerConfig, half: str, vocab_size: int, positions: str) -> Shapes:
    """What a half has before its layers, and the norm after them."""
    D, M = config.hidden_dim, config.feature_dim
    hears = half == "encoder" and bool(M)
    shapes: Shapes = {} if hears else {f"{half}.embedding.weight": (vocab_size, D)}
    if positions in STORED:
        shapes[f"{half}.pos_embedding.weight"] = (position_rows(config, half), D)
    if positions == RELATIVE and not config.relative_per_layer:
        shapes |= _relative(config, half)
    if config.embedding_norm:
        shapes |= _norm(config, f"{half}.embedding_norm")
    if config.final_norm:
        shapes |= _norm(config, f"{half}.final_norm")
    if hears:
        shapes |= _convolution("encoder.conv1", D, M) | _convolution("encoder.conv2", D, D)
    return shapes


def _encoder_layer(config: TransformerConfig, layer: str) -> Shapes:
    return (
        _self_attention(config, f"{layer}.multiheadattention", config.encoder_positions)
        | _norm(config, f"{layer}.layerNorm1")
        | _feed_forward(config, f"{layer}.ffn")
        | _norm(config, f"{layer}.layerNorm2")
    )


def _decoder_layer(config: TransformerConfig, layer: str) -> Shapes:
    return (
        _self_attention(config, f"{layer}.multiheadattention1", config.decoder_positions)
        | _norm(config, f"{layer}.layerNorm1")
        | _attention(config, f"{layer}.multiheadattention2")
        | _norm(config, f"{layer}.layerNorm2")
        | _feed_forward(config, f"{layer}.ffn")
        | _norm(config, f"{layer}.layerNorm3")
    )


def _self_attention(config: TransformerConfig, name: str, positions: str) -> Shapes:
    own_table = positions == RELATIVE and config.relative_per_layer
    return _attention(config, name) | (_relative(config, name) if own_table else {})


def _relative(config: TransformerConfig, owner: str) -> Shapes:
    return {f"{owner}.relative_bias.weight": (config.relative_buckets, config.num_heads)}


def _attention(config: TransformerConfig, name: str) -> Shapes:
    shapes: Shapes = {}
    D, heads = config.hidden_dim, config.heads_dim
    for part in ("fcQ", "fcK", "fcV"):
        bias = config.key_bias if part == "fcK" else config.attention_bias
        shapes |= _linear(f"{name}.{part}", heads, D, bias)
    return shapes | _linear(f"{name}.fcOut", D, heads, config.attention_output_bias)


def _feed_forward(config: TransformerConfig, name: str) -> Shapes:
    D, F = config.hidden_dim, config.inner_dim
    shapes = _linear(f"{name}.fc1", F, D, config.ffn_bias)
    shapes |= _linear(f"{name}.fc2", D, F, config.ffn_bias)
    return shapes | _linear(f"{name}.fc3", F, D, config.ffn_bias) if config.gated_ffn else shapes


def _linear(name: str, out_dim: int, in_dim: int, bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (out_dim, in_dim)}
    return shapes | {f"{name}.bias": (out_dim,)} if bias else shapes


def _convolution(name: str, out_dim: int, in_dim: int) -> Shapes:
    return {f"{name}.weight": (out_dim, in_dim, CONVOLUTION_WIDTH), f"{name}.bias": (out_dim,)}


def _norm(config: TransformerConfig, name: str) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (config.hidden_dim,)}
    return shapes if config.norm == "rms" else shapes | {f"{name}.bias": (config.hidden_dim,)}


def initial_weights(
    config: TransformerConfig, seed: int, dtype: DTypeLike = np.float32, gain: float = 1.0
) -> dict[str, np.ndarray]:
    """The first value of every stored weight: both twins start from these numbers.

    Linear and convolution weights are Xavier-uniform (Glorot and Bengio 2010, equation 16), biases
    zero, norms 1 and 0, embeddings and relative positions N(0, 1/D) with the padding row zero,
    positions that are never trained the sinusoids of the config. Where positions are relative, fcQ
    carries what the attention scale lacks to 1/sqrt(A), as in T5 (Raffel et al. 2020), whose scores
    are not scaled. A weight's numbers depend on the seed and its name only, so that another layer
    more or less leaves the others as they were.

    ``gain`` multiplies the weights by which values pass through a sub-layer: those of fcV, fcOut
    and the feed-forward, as in DeepNet (Wang et al. 2022, figure 2), whose residual scale is 1.
    """
    return {
        name: initial_weight(config, name, shape, seed, dtype, gain)
        for name, shape in weight_shapes(config).items()
    }


def initial_weight(
    config: TransformerConfig,
    name: str,
    shape: tuple[int, ...],
    seed: int,
    dtype: DTypeLike = np.float32,
    gain: float = 1.0,
) -> np.ndarray:
    """One of ``initial_weights``, by its canonical name."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    value = _initial_value(config, name, shape, generator)
    return (value * gain if name.endswith(PASSING) else value).astype(dtype, copy=False)


def _initial_value(
    config: TransformerConfig, name: str, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    kind = leaf_kind(name)
    if kind == "kernel":
        limit = math.sqrt(6 / ((shape[0] + shape[1]) * math.prod(shape[2:])))
        return generator.uniform(-limit, limit, shape) * _query_scale(config, name)
    if name.endswith("pos_embedding.weight") and _is_frozen(config, name):
        return sinusoid_table(config, np.float64)[: shape[0]]
    if kind == "embedding":
        table = generator.normal(0, config.hidden_dim**-0.5, shape)
        if not name.endswith(NO_PADDING_ROW):
            table[config.pad_id] = 0
        return table
    return np.ones(shape) if kind == "scale" else np.zeros(shape)


def _query_scale(config: TransformerConfig, name: str) -> float:
    """The factor on first values of fcQ that makes scores as large as 1/sqrt(A) would."""
    half, _, rest = name.partition(".")
    relative = getattr(config, f"{half}_positions") == RELATIVE
    if not (relative and rest.endswith(".fcQ.weight")):
        return 1.0
    return config.head_dim**-0.5 / config.attention_scale
