"""Attention weights: the same in both twins, and the ones that the twins multiply values by."""

import dataclasses

import numpy as np
import pytest
from parity_cases import TINY, random_weights, torch_side

from flax_transformer import attention_weights as flax_weights
from parity.forward.ids import Ids
from parity.twins.cases import inputs, pairwise_configs
from parity.twins.pair import Twins
from torch_transformer import attention_weights as torch_weights
from training_recipe.searching.attention import PLACES, AttentionWeights, layer_count
from transformer_spec import TransformerConfig, UserError, source_positions

pytestmark = pytest.mark.usefixtures("float64")

CONFIGS = pairwise_configs()
MARIAN = dataclasses.replace(TINY, decoder_start_id=TINY.pad_id, norm_position="pre")
T5 = dataclasses.replace(
    TINY, norm="rms", encoder_positions="relative", decoder_positions="relative",
    relative_buckets=8, relative_max_distance=6, attention_scale=1.0,
)  # fmt: skip
UMT5 = dataclasses.replace(T5, relative_per_layer=True, head_dim=5, gated_ffn=True)
SOURCE = np.array([[4, 5, 6, 7, 3], [8, 9, 3, 1, 1]])
TARGET = np.array([[0, 4, 5, 6], [0, 7, 1, 1]])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("index", range(0, len(CONFIGS), 9))
def test_the_twins_agree(index):
    twins = Twins(CONFIGS[index], "float64")
    source, target = inputs(CONFIGS[index])
    ours, theirs = (
        weights(model, source, target)
        for weights, model in ((torch_weights, twins.torch), (flax_weights, twins.flax))
    )
    config, (B, T) = CONFIGS[index], target.shape
    S = source_positions(source.shape, config)
    H, encoder, decoder = config.num_heads, config.num_encoder_layers, config.num_decoder_layers
    shapes = (decoder, B, H, T, S), (encoder, B, H, S, S), (decoder, B, H, T, T)
    for a, b, shape in zip(ours, theirs, shapes, strict=True):
        assert a.dtype == b.dtype == np.float64 and a.shape == b.shape == shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        np.testing.assert_allclose(a.sum(-1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [TINY, MARIAN, T5, UMT5])
def test_weighted_values_are_what_the_model_goes_on_with(config):
    side = torch_side(config, random_weights(config))
    trace = side.trace(Ids(SOURCE, TARGET), "float64")
    found = torch_weights(side.model("float64"), SOURCE, TARGET)
    for kind, place in PLACES.items():
        for layer, held in enumerate(getattr(found, kind)):
            name = place.format(layer)
            values = trace[f"{name}.fcV"]
            B, K, D = values.shape
            values = values.reshape(B, K, config.num_heads, -1).swapaxes(1, 2)
            context = (held @ values).swapaxes(1, 2).reshape(B, -1, D)
            np.testing.assert_allclose(context, trace[f"{name}.fcOut input"], rtol=0, atol=1e-12)


def both(config: TransformerConfig, *ids: np.ndarray) -> list[AttentionWeights]:
    twins = Twins(config, "float64")
    return [torch_weights(twins.torch, *ids), flax_weights(twins.flax, *ids)]


def test_padding_and_what_comes_later_is_never_looked_at():
    for found in both(TINY, SOURCE, TARGET):
        later = np.triu(np.ones((4, 4), bool), 1)
        assert (found.decoder[:, 0][..., later] == 0).all()
        assert (found.decoder[:, 0][..., ~later] > 0).all()
        for of_source in (found.cross, found.encoder):
            assert (of_source[:, 1, ..., 3:] == 0).all() and (of_source[:, 1, ..., :3] > 0).all()


def test_padding_changes_nothing():
    alone, padded = both(TINY, SOURCE[1:, :3], TARGET[1:, :2]), both(TINY, SOURCE, TARGET)
    for a, b in zip(alone, padded, strict=True):
        np.testing.assert_allclose(a.cross, b.cross[:, 1:, :, :2, :3], rtol=0, atol=1e-12)
        np.testing.assert_allclose(a.encoder, b.encoder[:, 1:, :, :3, :3], rtol=0, atol=1e-12)
        np.testing.assert_allclose(a.decoder, b.decoder[:, 1:, :, :2, :2], rtol=0, atol=1e-12)


def test_the_models_are_left_as_they_were():
    twins = Twins(TINY, "float64")
    modules = [str(twins.flax), str(twins.torch)]
    torch_weights(twins.torch, SOURCE, TARGET)
    flax_weights(twins.flax, SOURCE, TARGET)
    assert not any(module._forward_hooks for module in twins.torch.modules())
    assert [str(twins.flax), str(twins.torch)] == modules and "Listening" not in modules[0]


def test_sequences_that_are_too_long_are_refused():
    twins, long = Twins(TINY, "float64"), np.full((1, TINY.max_length + 1), 5)
    for weights, model in ((torch_weights, twins.torch), (flax_weights, twins.flax)):
        with pytest.raises(UserError, match="10"):
            weights(model, long, TARGET[:1])
        with pytest.raises(UserError, match="10"):
            weights(model, SOURCE[:1], long)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_half_without_layers_has_no_such_attention(half):
    config = dataclasses.replace(TINY, **{f"num_{half}_layers": 0})
    for found in both(config, SOURCE, TARGET):
        for kind in PLACES:
            layers = layer_count(kind, config)
            shape = getattr(found, kind).shape
            queries = SOURCE.shape[1] if kind == "encoder" else TARGET.shape[1]
            assert (shape[0], shape[3]) == (layers, queries)
            assert (layers == 0) == ((kind == "encoder") == (half == "encoder"))
