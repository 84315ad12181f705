"""The weights that training begins from."""

from __future__ import annotations

import numpy as np

from training_recipe.arrays import Header, Parts
from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig, initial_weight, weight_shapes


def first_weights(config: TransformerConfig, settings: TrainingSettings) -> Parts:
    """The weights both backends begin from, in the run's number format; drawn when asked for."""
    dtype, shapes = np.dtype(settings.weight_dtype), weight_shapes(config)

    def draw(name: str) -> np.ndarray:
        shape, seed, gain = shapes[name], settings.seed, settings.init_gain
        return initial_weight(config, name, shape, seed, dtype.type, gain)

    return Parts({name: Header(shape, dtype) for name, shape in shapes.items()}, draw)
