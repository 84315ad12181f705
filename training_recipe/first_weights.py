"""The weights that training begins from."""

from __future__ import annotations

import numpy as np

from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig, initial_weights


def first_weights(config: TransformerConfig, settings: TrainingSettings) -> dict[str, np.ndarray]:
    """The weights both backends begin from, in the run's number format."""
    dtype = np.dtype(settings.weight_dtype).type
    return initial_weights(config, settings.seed, dtype, settings.init_gain)
