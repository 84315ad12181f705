"""The inventory: every weight of a config by its canonical name, its shape and its first value."""

import math
import zlib

import numpy as np
from numpy.typing import DTypeLike

from transformer_spec.config import LEARNED, TransformerConfig
from transformer_spec.leaves import leaf_kind
from transformer_spec.positions import position_rows

Shapes = dict[str, tuple[int, ...]]

OUTPUT = "decoder.finalFc.weight"
PASSING = (".fcV.weight", ".fcOut.weight", ".ffn.fc1.weight", ".ffn.fc2.weight")


def weight_shapes(config: TransformerConfig) -> Shapes:
    """Canonical name -> shape of every stored weight, in canonical order; tied weights once."""
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
    return {"decoder.embedding.weight": source, OUTPUT: source}


def trained_names(config: TransformerConfig) -> list[str]:
    """The stored weights that training changes: all but a frozen output bias."""
    frozen = {"decoder.finalFc.bias"} if config.output_bias == "frozen" else set[str]()
    return [name for name in weight_shapes(config) if name not in frozen]


def all_weight_shapes(config: TransformerConfig) -> Shapes:
    """Canonical name -> shape, aliases of tied weights included."""
    shapes: Shapes = {}
    shapes |= _embeddings(config, "encoder", config.source_vocab_size, config.encoder_positions)
    for i in range(config.num_encoder_layers):
        shapes |= _encoder_layer(config, f"encoder.enc_layers.{i}")
    shapes |= _final_norm(config, "encoder")
    shapes |= _embeddings(config, "decoder", config.target_vocab_size, config.decoder_positions)
    for i in range(config.num_decoder_layers):
        shapes |= _decoder_layer(config, f"decoder.dec_layers.{i}")
    shapes |= _final_norm(config, "decoder")
    output = (config.target_vocab_size, config.hidden_dim)
    return shapes | _linear("decoder.finalFc", *output, config.output_bias != "none")


def _embeddings(config: TransformerConfig, half: str, vocab_size: int, positions: str) -> Shapes:
    D = config.hidden_dim
    shapes: Shapes = {f"{half}.embedding.weight": (vocab_size, D)}
    if positions in LEARNED:
        shapes[f"{half}.pos_embedding.weight"] = (position_rows(config), D)
    if config.embedding_norm:
        shapes |= _norm(f"{half}.embedding_norm", D)
    return shapes


def _encoder_layer(config: TransformerConfig, layer: str) -> Shapes:
    D = config.hidden_dim
    return (
        _attention(config, f"{layer}.multiheadattention")
        | _norm(f"{layer}.layerNorm1", D)
        | _feed_forward(config, f"{layer}.ffn")
        | _norm(f"{layer}.layerNorm2", D)
    )


def _decoder_layer(config: TransformerConfig, layer: str) -> Shapes:
    D = config.hidden_dim
    return (
        _attention(config, f"{layer}.multiheadattention1")
        | _norm(f"{layer}.layerNorm1", D)
        | _attention(config, f"{layer}.multiheadattention2")
        | _norm(f"{layer}.layerNorm2", D)
        | _feed_forward(config, f"{layer}.ffn")
        | _norm(f"{layer}.layerNorm3", D)
    )


def _attention(config: TransformerConfig, name: str) -> Shapes:
    shapes: Shapes = {}
    for part in ("fcQ", "fcK", "fcV", "fcOut"):
        D = config.hidden_dim
        shapes |= _linear(f"{name}.{part}", D, D, config.attention_bias)
    return shapes


def _feed_forward(config: TransformerConfig, name: str) -> Shapes:
    D, F = config.hidden_dim, config.inner_dim
    first = _linear(f"{name}.fc1", F, D, config.ffn_bias)
    return first | _linear(f"{name}.fc2", D, F, config.ffn_bias)


def _final_norm(config: TransformerConfig, half: str) -> Shapes:
    return _norm(f"{half}.final_norm", config.hidden_dim) if config.final_norm else {}


def _linear(name: str, out_dim: int, in_dim: int, bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (out_dim, in_dim)}
    return shapes | {f"{name}.bias": (out_dim,)} if bias else shapes


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def initial_weights(
    config: TransformerConfig, seed: int, dtype: DTypeLike = np.float32, gain: float = 1.0
) -> dict[str, np.ndarray]:
    """The first value of every stored weight: both twins start from these numbers.

    Linear weights are Xavier-uniform (Glorot and Bengio 2010, equation 16), biases zero, LayerNorm
    1 and 0, embeddings N(0, 1/D) with the padding row zero. A weight's numbers depend on the seed
    and its name only, so that another layer more or less leaves the others as they were.

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
        limit = math.sqrt(6 / (shape[0] + shape[1]))
        return generator.uniform(-limit, limit, shape)
    if kind == "embedding":
        table = generator.normal(0, config.hidden_dim**-0.5, shape)
        if not name.endswith("pos_embedding.weight"):
            table[config.pad_id] = 0
        return table
    return np.ones(shape) if kind == "scale" else np.zeros(shape)
