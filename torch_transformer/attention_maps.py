"""What every attention looks at, the twin of flax_transformer/attention_maps.py.

Letters: B batch, D hidden_dim, H num_heads, S source length, T target length, Q query length,
K key length, X width of all heads.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torch_transformer.layers import (
    MultiHeadAttention,
    look_ahead_mask,
    never_empty,
    padding_mask,
    probabilities,
)
from torch_transformer.model import Transformer
from torch_transformer.relative import Bias
from training_recipe.searching.attention import PLACES, AttentionWeights, layer_count
from transformer_spec import source_positions
from transformer_spec.ids import given_pair

PROJECTIONS = ("fcQ", "fcK")


@torch.no_grad()
def attention_weights(
    model: Transformer, source: np.ndarray, target: np.ndarray
) -> AttentionWeights:
    """The attention weights of every layer and head in one forward pass, (L, B, H, Q, K) each.

    ``source`` (B, S) or features (B, W, M), and ``target`` (B, T) are as the model takes them; the
    target begins with the decoder's start token, and its row t is what the decoder looks at to
    write the token after t. A row sums to 1 and gives padding and later tokens 0; rows of padding
    mean nothing. Sequences longer than the model takes are a UserError, and so are ids that its
    vocabularies do not have and other numbers of rows. Vaswani et al. 2017,
    section 3.2.
    """
    source, target = given_pair(source, target, model.config)
    device, given = model.target_table.device, model.as_source(source)
    tokens = torch.from_numpy(target.astype(np.int64)).to(device)
    S, T = source_positions(tuple(given.shape), model.config), tokens.shape[1]
    with listening(model) as heard:
        model.decoder_states(tokens, model.encoder_states(given), given)
    source_mask = padding_mask(model.real_source(given))
    real = model.real_target_tokens(tokens)
    target_mask = never_empty(padding_mask(real) & look_ahead_mask(T, T, device))
    masks = {"cross": (source_mask, T), "encoder": (source_mask, S), "decoder": (target_mask, T)}
    found = {kind: stacked(model, heard, kind, *given) for kind, given in masks.items()}
    return AttentionWeights(**{kind: array.cpu().numpy() for kind, array in found.items()})


@contextlib.contextmanager
def listening(model: Transformer) -> Iterator[dict[str, Tensor]]:
    """Keep what the projections of every attention give, by their names, while the block runs."""
    heard: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module: torch.nn.Module, given: tuple, output: Tensor) -> None:
            heard[name] = output

        return hook

    with contextlib.ExitStack() as stack:
        for name, attention in attentions(model).items():
            for part in PROJECTIONS:
                hook = keep(f"{name}.{part}")
                stack.enter_context(getattr(attention, part).register_forward_hook(hook))
        yield heard


def attentions(model: Transformer) -> dict[str, MultiHeadAttention]:
    """Every attention by its name."""
    found = model.named_modules()
    return {name: module for name, module in found if isinstance(module, MultiHeadAttention)}


def stacked(
    model: Transformer, heard: dict[str, Tensor], kind: str, mask: Bool[Tensor, "B 1 #Q K"], Q: int
) -> Float[Tensor, "L B H Q K"]:
    """The weights of a kind of attention, the first layer first."""
    config, place, modules = model.config, PLACES[kind], attentions(model)
    half = {"encoder": model.encoder, "decoder": model.decoder}.get(kind)
    layers = []
    for name in map(place.format, range(layer_count(kind, config))):
        queries, keys = (heard[f"{name}.{part}"] for part in PROJECTIONS)
        bias = half.bias(queries, 0, mask.shape[3], 1) if half else None
        layers.append(weights_of(modules[name], queries, keys, mask, bias))
    none = 0, len(mask), config.num_heads, Q, mask.shape[3]
    return torch.stack(layers) if layers else torch.zeros(none)


def weights_of(
    attention: MultiHeadAttention,
    queries: Float[Tensor, "B Q X"],
    keys: Float[Tensor, "B K X"],
    mask: Bool[Tensor, "B 1 #Q K"],
    bias: Bias,
) -> Float[Tensor, "B H Q K"]:
    """The softmax (section 3.2.1) that ``layers.attention`` multiplies the values by."""
    q, k = attention.split_heads(queries), attention.split_heads(keys)
    return probabilities(q, k, mask, attention.config.attention_scale, attention.added(bias))
