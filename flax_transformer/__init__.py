"""The JAX/Flax NNX twin."""

from flax_transformer.attention_maps import attention_weights
from flax_transformer.dropout import Dropout
from flax_transformer.folder import load, save
from flax_transformer.hearing import Heard, hear
from flax_transformer.model import Transformer
from flax_transformer.weights import initialise, load_weights, weights

__all__ = [
    "Dropout",
    "Heard",
    "Transformer",
    "attention_weights",
    "hear",
    "initialise",
    "load",
    "load_weights",
    "save",
    "weights",
]
