"""Models with every number random, as sides of a comparison."""

import numpy as np

from parity.sides import FlaxTwin, Side, TorchTwin, Trace
from transformer_spec import TransformerConfig, initial_weights

TINY = TransformerConfig(
    source_vocab_size=17, target_vocab_size=19, hidden_dim=12, inner_dim=7, num_heads=3,
    num_encoder_layers=1, num_decoder_layers=2, max_length=9, pad_id=1, bos_id=0,
)  # fmt: skip


def random_weights(config: TransformerConfig, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    first = initial_weights(config, seed, np.float64)
    return {name: array + draw.normal(0, 0.3, array.shape) for name, array in first.items()}


def torch_side(config: TransformerConfig, weights: dict | None = None, given: str = "a") -> Side:
    return TorchTwin(given, "the torch twin", "torch", config, weights or random_weights(config))


def flax_side(config: TransformerConfig, weights: dict | None = None, given: str = "b") -> Side:
    return FlaxTwin(given, "the jax twin", "jax", config, weights or random_weights(config))


class Known(Side):
    """A side whose traces are known and whose weights nobody can see."""

    traces: list[Trace]

    def trace(self, ids, precision: str) -> Trace:
        return self.traces.pop(0)
