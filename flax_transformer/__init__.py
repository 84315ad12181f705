"""The JAX/Flax NNX twin."""

from flax_transformer.attention_maps import attention_weights
from flax_transformer.decoding import decode
from flax_transformer.dropout import Dropout
from flax_transformer.folder import load, save
from flax_transformer.hearing import Heard, hear
from flax_transformer.model import Transformer
from flax_transformer.weights import initialise, load_weights, weights
from training_recipe.searching.search import Hypothesis, Search

__all__ = [
    "Dropout",
    "Heard",
    "Hypothesis",
    "Search",
    "Transformer",
    "attention_weights",
    "decode",
    "hear",
    "initialise",
    "load",
    "load_weights",
    "save",
    "weights",
]
