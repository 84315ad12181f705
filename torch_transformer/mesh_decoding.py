"""Decoding by several processes, the twin of flax_transformer/mesh_decoding.py."""

import numpy as np

from torch_transformer.decoding import decode
from torch_transformer.model import Transformer
from torch_transformer.placement import each_row
from training_recipe.distributed.processes import World
from training_recipe.searching.search import Hypothesis, Search


def decode_in(
    world: World, device: str, model: Transformer, source: np.ndarray, search: Search
) -> list[list[Hypothesis]]:
    """The n best outputs of each row of ``source`` (B, S), found by all processes of a world.

    The model's weights lie whole on the device of each. Every process calls this with equal
    arguments and gets all outputs; an error of one is an error of all.
    """
    parts = each_row(world.processes, lambda rows: decode(model, rows, search), source)
    return [row for part in parts for row in part]
