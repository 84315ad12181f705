"""Small models, searches and sources of the decoding tests, for both twins alike."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import flax_transformer
import torch_transformer
from flax_transformer import decoding as flax_decoding
from torch_transformer import decoding as torch_decoding
from training_recipe.searching.search import Search
from transformer_spec import TransformerConfig, to_flax, weight_shapes

PLAIN = TransformerConfig(
    source_vocab_size=11, target_vocab_size=11, hidden_dim=6, inner_dim=7, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1, max_length=17,
)  # fmt: skip
FOREIGN = dataclasses.replace(
    PLAIN, num_decoder_layers=2, norm_position="pre", final_norm=True,
    positions_skip_padding=True, position_offset=2,
    decoder_positions="learned", embedding_norm=True, tied_embeddings="all", decoder_start_id=0,
)  # fmt: skip
CHANGES = [
    {},
    {"norm_position": "pre", "final_norm": True},
    {"positions_skip_padding": True, "position_offset": 2},
    {"decoder_positions": "learned", "position_offset": 1},
    {"decoder_positions": "none", "final_norm": True},
    {"decoder_start_id": 0},
    {"decoder_start_id": 0, "positions_skip_padding": True, "decoder_positions": "learned"},
    {"embedding_norm": True, "tied_embeddings": "all", "sinusoid_layout": "concatenated"},
    {"tied_embeddings": "target_output", "output_bias": "frozen"},
    {"decoder_positions": "relative", "norm": "rms", "output_scale": 0.3, "decoder_start_id": 0},
]
RELATIVE = dataclasses.replace(
    PLAIN, norm_position="pre", final_norm=True, norm="rms", norm_epsilon=1e-6, head_dim=4,
    encoder_positions="relative", decoder_positions="relative", relative_buckets=8,
    relative_max_distance=10, attention_scale=1.0, embedding_scale=1.0, attention_bias=False,
    ffn_bias=False, output_bias="none", gated_ffn=True, tied_embeddings="source_target",
    decoder_start_id=0, relative_per_layer=True, num_decoder_layers=2,
)  # fmt: skip
SEARCHES = {
    "greedy": Search(),
    "beam 4, no penalty": Search(beam=4, length_penalty=0.0, nbest=4),
    "beam 4, penalty 0.6": Search(beam=4, length_penalty=0.6, nbest=4),
    "beam 4, penalty 1": Search(beam=4, length_penalty=1.0, nbest=4),
    "beam 4, penalty 1.5": Search(beam=4, length_penalty=1.5, nbest=4),
    "beam 4, penalty -0.5": Search(beam=4, length_penalty=-0.5, nbest=4),
    "samples": Search(sample=True, nbest=3, temperature=0.7, seed=5),
}
SOURCE = np.array(
    [
        [4, 5, 6, 7, 8, 9, 10, 3],
        [7, 7, 3, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [10, 4, 1, 8, 3, 0, 0, 0],
        [7, 7, 3, 0, 0, 0, 0, 0],
    ]
)


def random_weights(config, seed, gain=1.0):
    """Weights large enough that outputs differ from each other and end early or late."""
    draw = np.random.default_rng(seed)
    shapes = weight_shapes(config).items()
    return {name: gain * draw.normal(0, 0.7, shape) for name, shape in shapes}


def torch_model(config, weights):
    model = torch_transformer.Transformer(config, dtype=torch.float64)
    torch_transformer.load_weights(model, weights)
    return model


def flax_model(config, weights):
    model = flax_transformer.Transformer(config, dtype=np.float64)
    flax_transformer.load_weights(model, dict(to_flax(*item) for item in weights.items()))
    return model


def torch_outputs(config, weights, source, search):
    return torch_decoding.decode(torch_model(config, weights), source, search)


def flax_outputs(config, weights, source, search):
    return flax_decoding.decode(flax_model(config, weights), source, search)


both_twins = pytest.mark.parametrize("outputs", [torch_outputs, flax_outputs])


def assert_same(ours, theirs, bound=1e-11):
    assert [[h.ids for h in row] for row in ours] == [[h.ids for h in row] for row in theirs]
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert one.score == pytest.approx(other.score, rel=0, abs=bound)
        assert one.log_probability == pytest.approx(other.log_probability, rel=0, abs=bound)
