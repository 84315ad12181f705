"""The PyTorch twin."""

from torch_transformer.attention_maps import attention_weights
from torch_transformer.dropout import Dropout
from torch_transformer.model import Transformer
from torch_transformer.weights import load, load_weights, weights

__all__ = [
    "Dropout",
    "Transformer",
    "attention_weights",
    "load",
    "load_weights",
    "weights",
]
