"""Small models with relative positions, and what they compute, in NumPy from the formulas.

    rms(x)    = x / sqrt(mean(x^2) + epsilon) * weight
    scores    = q . k, for self-attention + table[bucket(key's column - query's column), head]
    ffn(x)    = fc2(activation(fc1 x)), or fc2(activation(fc1 x) * fc3 x) with a gate
    x         = x + sub-layer(rms(x)), three times in the decoder; rms at the end of each half
    logits    = table . (output_scale * states)

Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1; Shazeer 2020, "GLU
Variants Improve Transformer".
"""

import math
from collections.abc import Mapping

import numpy as np

from parity.twins.cases import config_of
from transformer_spec import TransformerConfig

ARCHITECTURE = {
    "norm_position": "pre", "norm": "rms", "norm_epsilon": 1e-6, "encoder_positions": "relative",
    "decoder_positions": "relative", "relative_buckets": 8, "relative_max_distance": 10,
    "attention_scale": 1.0, "embedding_scale": 1.0, "attention_bias": False, "ffn_bias": False,
    "output_bias": "none", "decoder_start_id": 0, "dropout": 0.0,
}  # fmt: skip
SHARED = ARCHITECTURE | {"tied_embeddings": "all", "output_scale": 15**-0.5}
OF_LAYERS = ARCHITECTURE | {
    "tied_embeddings": "source_target", "head_dim": 4, "gated_ffn": True,
    "activation": "gelu_tanh", "relative_per_layer": True, "num_decoder_layers": 3,
}  # fmt: skip
# One table for each half as in T5 v1.0, and one for each layer, with a gate, as in UMT5.
CONFIGS = {"shared": config_of(SHARED), "of layers": config_of(OF_LAYERS)}


def bucket(distance: int, half: str, config: TransformerConfig) -> int:
    """The row of a distance, key minus query."""
    rows, base = config.relative_buckets, 0
    if half == "encoder":
        rows //= 2
        base = rows if distance > 0 else 0
    away = abs(distance) if half == "encoder" else max(-distance, 0)
    exact = rows // 2
    if away < exact:
        return base + away
    share = math.log(away / exact) / math.log(config.relative_max_distance / exact)
    return base + min(rows - 1, exact + int(share * (rows - exact)))


class Formulas:
    """Logits (B, T, V) of token ids; no id of a row but those at its end is padding."""

    def __init__(self, config: TransformerConfig, weights: Mapping[str, np.ndarray]) -> None:
        self.config, self.weights = config, weights

    def __call__(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        seen = (source != self.config.pad_id)[:, None, None, :]
        T = target.shape[1]
        past = (np.arange(T) <= np.arange(T)[:, None])[None, None]
        memory = self.half("encoder", source, seen)
        states = self.half("decoder", target, past, memory, seen)
        table = self.weight("decoder.finalFc", "encoder.embedding")
        return self.config.output_scale * states @ table.T

    def weight(self, *names: str) -> np.ndarray:
        """Of the first of these that there is."""
        return next(self.weights[f"{n}.weight"] for n in names if f"{n}.weight" in self.weights)

    def half(self, half, ids, seen, memory=None, memory_seen=None) -> np.ndarray:
        x = self.weight("encoder.embedding")[ids]
        for i in range(getattr(self.config, f"num_{half}_layers")):
            layer, own = f"{half}.{half[:3]}_layers.{i}", "multiheadattention"
            own = own if memory is None else f"{own}1"
            h = self.rms(f"{layer}.layerNorm1", x)
            bias = self.bias(half, f"{layer}.{own}", ids.shape[1])
            x = x + self.attend(f"{layer}.{own}", h, h, seen, bias)
            if memory is not None:
                h = self.rms(f"{layer}.layerNorm2", x)
                x = x + self.attend(f"{layer}.multiheadattention2", h, memory, memory_seen, 0)
            last = 2 if memory is None else 3
            x = x + self.feed_forward(f"{layer}.ffn", self.rms(f"{layer}.layerNorm{last}", x))
        return self.rms(f"{half}.final_norm", x)

    def bias(self, half: str, attention: str, K: int) -> np.ndarray:
        """(H, K, K)."""
        table = self.weight(f"{attention}.relative_bias", f"{half}.relative_bias")
        columns = range(K)
        rows = [[bucket(key - query, half, self.config) for key in columns] for query in columns]
        return table[np.array(rows)].transpose(2, 0, 1)

    def rms(self, name: str, x: np.ndarray) -> np.ndarray:
        size = np.sqrt((x * x).mean(-1, keepdims=True) + self.config.norm_epsilon)
        return x / size * self.weight(name)

    def attend(self, name, x, memory, seen, bias) -> np.ndarray:
        q, k, v = (
            (given @ self.weight(f"{name}.{part}").T)
            .reshape(*given.shape[:2], self.config.num_heads, self.config.head_dim)
            .swapaxes(1, 2)
            for part, given in (("fcQ", x), ("fcK", memory), ("fcV", memory))
        )
        scores = np.where(seen, q @ k.swapaxes(2, 3) + bias, -np.inf)
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        context = powers / powers.sum(-1, keepdims=True) @ v
        heads = context.swapaxes(1, 2).reshape(*x.shape[:2], -1)
        return heads @ self.weight(f"{name}.fcOut").T

    def feed_forward(self, name: str, x: np.ndarray) -> np.ndarray:
        h = self.activated(x @ self.weight(f"{name}.fc1").T)
        h = h * (x @ self.weight(f"{name}.fc3").T) if self.config.gated_ffn else h
        return h @ self.weight(f"{name}.fc2").T

    def activated(self, x: np.ndarray) -> np.ndarray:
        if self.config.activation == "relu":
            return np.maximum(x, 0)
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
