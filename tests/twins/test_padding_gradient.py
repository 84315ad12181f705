"""A decoder that starts from padding: whether the row of padding learns from being looked up."""

import dataclasses

import numpy as np
import pytest
from small_training import CONFIG, MAKERS, batch, changed

from training_recipe.batching.batches import Batch
from transformer_spec import initial_weights

STARTS = dataclasses.replace(CONFIG, tied_embeddings="none", decoder_start_id=CONFIG.pad_id)


def started_from_padding() -> Batch:
    made = batch(0, 3)
    target_in = made.target_in.copy()
    target_in[:, 0] = CONFIG.pad_id
    return Batch(made.source, target_in, made.target_out)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.usefixtures("float64", "quick_compiling")
def test_the_gradient_of_the_row(learns: bool) -> None:
    """In both twins alike, and the loss and every other gradient are the same."""
    settings, weights = changed(padding_gradient=learns), initial_weights(STARTS, 0, np.float64)
    weights["decoder.embedding.weight"] = weights["decoder.embedding.weight"] + 0.1
    moments = {}
    for name, make in MAKERS.items():
        backend = make(STARTS, settings, weights)
        backend.train_step([started_from_padding()], 1, 1e-3)
        moments[name] = backend.state().first_moments
        row = moments[name]["decoder.embedding.weight"][CONFIG.pad_id]
        assert np.abs(row).min() > 0 if learns else not row.any()
        assert not moments[name]["encoder.embedding.weight"][CONFIG.pad_id].any()
    for weight, moment in moments["torch"].items():
        np.testing.assert_allclose(moments["jax"][weight], moment, rtol=0, atol=1e-10)
