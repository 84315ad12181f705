"""What every attention looks at, the twin of torch_transformer/attention_maps.py.

Letters: B batch, D hidden_dim, H num_heads, S source length, T target length, Q query length,
K key length, X width of all heads.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from flax_transformer.cpu.attention import probabilities
from flax_transformer.layers import (
    MultiHeadAttention,
    look_ahead_mask,
    never_empty,
    padding_mask,
)
from flax_transformer.model import Source, Transformer
from flax_transformer.precision import full_precision
from flax_transformer.relative import Bias
from training_recipe.searching.attention import PLACES, AttentionWeights, layer_count
from transformer_spec import source_positions
from transformer_spec.ids import given_pair

PROJECTIONS = ("fcQ", "fcK")


@full_precision
def attention_weights(
    model: Transformer, source: np.ndarray, target: np.ndarray
) -> AttentionWeights:
    """The attention weights of every layer and head in one forward pass, (L, B, H, Q, K) each.

    ``source`` (B, S) or features (B, W, M), and ``target`` (B, T) are as the model takes them; the
    target begins with the decoder's start token, and its row t is what the decoder looks at to
    write the token after t. A row sums to 1 and gives padding and later tokens 0; rows of padding
    mean nothing. Sequences longer than the model takes are a UserError, and so are ids that its
    vocabularies do not have and other numbers of rows. Vaswani et al. 2017,
    section 3.2. Each pair of shapes is compiled once.
    """
    source, target = given_pair(source, target, model.config)
    given = model.as_source(source), jnp.asarray(target, jnp.int32)
    found = compiled(*nnx.split(model), *given)
    return AttentionWeights(**{kind: np.asarray(array) for kind, array in found.items()})


@functools.partial(jax.jit, static_argnums=0)
def compiled(graph, weights, source: Source, target: Int[Array, "B T"]) -> dict[str, Array]:
    """The weights of every kind by the model of a graph and its weights, as one program."""
    model, T = nnx.merge(graph, weights), target.shape[1]
    S = source_positions(source.shape, model.config)
    heard = listen(model)
    model.decoder_states(target, model.encoder_states(source), source)
    source_mask = padding_mask(model.real_source(source))
    real = model.real_target_tokens(target)
    target_mask = never_empty(padding_mask(real) & look_ahead_mask(T, T))
    masks = {"cross": (source_mask, T), "encoder": (source_mask, S), "decoder": (target_mask, T)}
    return {kind: stacked(model, heard, kind, *given) for kind, given in masks.items()}


class Listening(nnx.Module):
    """A projection that tells what it gives."""

    def __init__(self, plain: nnx.Module, keep: Callable[[Array], None]) -> None:
        self.plain, self.keep = plain, keep

    def __call__(self, x: Array) -> Array:
        output = self.plain(x)
        self.keep(output)
        return output


def listen(model: Transformer) -> dict[str, Array]:
    """Keep what the projections of every attention give from now on, by their names."""
    heard: dict[str, Array] = {}
    for name, attention in attentions(model).items():
        for part in PROJECTIONS:
            keep = functools.partial(heard.__setitem__, f"{name}.{part}")
            setattr(attention, part, Listening(getattr(attention, part), keep))
    return heard


def attentions(model: Transformer) -> dict[str, MultiHeadAttention]:
    """Every attention by its name."""
    found = ((".".join(map(str, path)), module) for path, module in nnx.iter_modules(model))
    return {name: module for name, module in found if isinstance(module, MultiHeadAttention)}


def stacked(
    model: Transformer, heard: dict[str, Array], kind: str, mask: Bool[Array, "B 1 #Q K"], Q: int
) -> Float[Array, "L B H Q K"]:
    """The weights of a kind of attention, the first layer first."""
    config, place, modules = model.config, PLACES[kind], attentions(model)
    half = {"encoder": model.encoder, "decoder": model.decoder}.get(kind)
    layers = []
    for name in map(place.format, range(layer_count(kind, config))):
        queries, keys = (heard[f"{name}.{part}"] for part in PROJECTIONS)
        bias = half.bias(queries, 0, mask.shape[3], 1) if half else None
        layers.append(weights_of(modules[name], queries, keys, mask, bias))
    none = 0, len(mask), config.num_heads, Q, mask.shape[3]
    return jnp.stack(layers) if layers else jnp.zeros(none)


def weights_of(
    attention: MultiHeadAttention,
    queries: Float[Array, "B Q X"],
    keys: Float[Array, "B K X"],
    mask: Bool[Array, "B 1 #Q K"],
    bias: Bias,
) -> Float[Array, "B H Q K"]:
    """The softmax (section 3.2.1) that ``layers.attention`` multiplies the values by."""
    q, k = attention.split_heads(queries), attention.split_heads(keys)
    return probabilities(q, k, mask, attention.config.attention_scale, attention.added(bias))
