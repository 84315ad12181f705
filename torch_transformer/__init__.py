"""The PyTorch twin."""

from torch_transformer.attention_maps import attention_weights
from torch_transformer.decoding import decode
from torch_transformer.dropout import Dropout
from torch_transformer.folder import load, save
from torch_transformer.hearing import Heard, hear
from torch_transformer.model import Transformer
from torch_transformer.weights import initialise, load_weights, weights
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
