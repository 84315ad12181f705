"""The plain post-norm Transformer in NumPy, every sum taken term after term: what float32 allows.

Term after term (recursive summation: Higham, Accuracy and Stability of Numerical Algorithms,
chapter 4) is the longest chain of roundings that a sum can have; what libraries do, in blocks and
with fused products, rounds no more than that. No order here is a library's or a processor's: IEEE
754 fixes each product, sum and square root, and the exponential is rounded from float64.

Letters: B batch, S source length, T target length, Q query length, K key length, I input and O
output width, D hidden_dim, H num_heads, A head_dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from transformer_spec import TransformerConfig, sinusoid_table

PLAIN = {
    "norm_position": "post", "final_norm": False, "embedding_norm": False, "activation": "relu",
    "encoder_positions": "sinusoidal", "decoder_positions": "sinusoidal", "position_offset": 0,
    "positions_skip_padding": False, "tied_embeddings": "none", "output_bias": "trained",
    "attention_bias": True, "ffn_bias": True, "norm": "layer", "gated_ffn": False,
    "output_scale": 1.0,
}  # fmt: skip


def product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(..., Q, I) x (..., I, O) -> (..., Q, O), in the order of I."""
    shape = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    total = np.zeros((*shape, x.shape[-2], w.shape[-1]), x.dtype)
    term = np.empty_like(total)
    for i in range(w.shape[-2]):
        total += np.multiply(x[..., i, None], w[..., None, i, :], out=term)
    return total


def total(x: np.ndarray) -> np.ndarray:
    """(..., D) -> (..., 1)."""
    return np.cumsum(x, -1, dtype=x.dtype)[..., -1:]


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(-1, keepdims=True)
    powers = np.exp(shifted.astype(np.float64)).astype(scores.dtype)
    return powers / total(powers)


def never_empty(mask: np.ndarray) -> np.ndarray:
    """A query that may see nothing sees everything, as in the twins."""
    return mask | ~mask.any(-1, keepdims=True)


@dataclass(frozen=True)
class RecursiveSums:
    """The model around weights with canonical names; it computes in their number format."""

    config: TransformerConfig
    weights: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        other = [name for name, value in PLAIN.items() if getattr(self.config, name) != value]
        if other:
            raise ValueError(f"the plain model is without other values of {', '.join(other)}")

    def __call__(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Token ids (B, S) and (B, T) -> logits (B, T, V)."""
        T = target.shape[1]
        mask = never_empty((source != self.config.pad_id)[:, None, None, :])
        seen = (target != self.config.pad_id)[:, None, None, :]
        ahead = never_empty(never_empty(seen) & np.tril(np.ones((T, T), bool)))
        memory = self.embed("encoder", source)
        for number in range(self.config.num_encoder_layers):
            layer = f"encoder.enc_layers.{number}"
            memory = self.attend(layer, "multiheadattention", 1, memory, memory, mask)
            memory = self.feed_forward(layer, 2, memory)
        x = self.embed("decoder", target)
        for number in range(self.config.num_decoder_layers):
            layer = f"decoder.dec_layers.{number}"
            x = self.attend(layer, "multiheadattention1", 1, x, x, ahead)
            x = self.attend(layer, "multiheadattention2", 2, x, memory, mask)
            x = self.feed_forward(layer, 3, x)
        return self.linear("decoder.finalFc", x)

    def embed(self, half: str, ids: np.ndarray) -> np.ndarray:
        table = self.weights[f"{half}.embedding.weight"]
        scale = table.dtype.type(self.config.embedding_scale)
        return table[ids] * scale + sinusoid_table(self.config, table.dtype.type)[: ids.shape[1]]

    def attend(self, layer, part, norm, x, memory, mask) -> np.ndarray:
        """Attention, residual sum and norm."""
        inside = f"{layer}.{part}"
        q, k, v = (
            self.heads(self.linear(f"{inside}.{name}", given))
            for name, given in (("fcQ", x), ("fcK", memory), ("fcV", memory))
        )
        scores = product(q * x.dtype.type(self.config.attention_scale), k.swapaxes(2, 3))
        weights = softmax(np.where(mask, scores, np.finfo(x.dtype).min))
        context = product(weights, v).swapaxes(1, 2).reshape(*x.shape[:2], -1)
        return self.norm(f"{layer}.layerNorm{norm}", x + self.linear(f"{inside}.fcOut", context))

    def feed_forward(self, layer: str, norm: int, x: np.ndarray) -> np.ndarray:
        h = np.maximum(self.linear(f"{layer}.ffn.fc1", x), 0)
        return self.norm(f"{layer}.layerNorm{norm}", x + self.linear(f"{layer}.ffn.fc2", h))

    def heads(self, x: np.ndarray) -> np.ndarray:
        """(B, K, D) -> (B, H, K, A)."""
        return x.reshape(*x.shape[:2], self.config.num_heads, -1).swapaxes(1, 2)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return product(x, self.weights[f"{name}.weight"].T) + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        D, epsilon = (x.dtype.type(n) for n in (x.shape[-1], self.config.norm_epsilon))
        centred = x - total(x) / D
        normal = centred / np.sqrt(total(centred * centred) / D + epsilon)
        return normal * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
