"""Positions, inventory, first weights and leaf names, against hand-worked numbers."""

import math

import numpy as np
import pytest
from messages import says

from parity.twins.cases import config_of, pairwise_configs
from transformer_spec import (
    UserError,
    canonical_name,
    check_arrays,
    flax_name,
    initial_weights,
    leaf_kind,
    relative_buckets,
    sinusoid_table,
    tied_weights,
    to_flax,
    to_torch,
    trained_names,
    weight_shapes,
)
from transformer_spec.chunks import CHUNK_NUMBERS, FEWEST_TOKENS, chunk_tokens
from transformer_spec.dropout_keys import batch_key, drop_threshold


def test_interleaved_sinusoids() -> None:
    config = config_of({"hidden_dim": 4, "num_heads": 2})
    row = sinusoid_table(config, np.float64)[3]
    expected = [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)]
    np.testing.assert_allclose(row, expected, atol=1e-15)


def test_concatenated_sinusoids_with_the_other_frequency() -> None:
    values = {"hidden_dim": 6, "num_heads": 2, "sinusoid_layout": "concatenated"}
    config = config_of(values | {"sinusoid_frequency": "i/(d/2-1)"})
    row = sinusoid_table(config, np.float64)[2]
    angles = [2.0, 2 / 100, 2 / 10000]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    np.testing.assert_allclose(row, expected, atol=1e-15)


def test_odd_widths() -> None:
    """2i/d has one sine more than cosines; i/(d/2-1) leaves the last column at zero."""
    paper = sinusoid_table(config_of({"hidden_dim": 5, "num_heads": 1}), np.float64)
    assert paper[1, 4] == pytest.approx(math.sin(10000 ** (-4 / 5)), abs=1e-15)
    other = config_of({"hidden_dim": 5, "num_heads": 1, "sinusoid_frequency": "i/(d/2-1)"})
    assert not sinusoid_table(other, np.float64)[:, 4].any()


def test_float32_table_is_the_float64_table_rounded_once() -> None:
    config = config_of({"position_offset": 2})
    wide, narrow = sinusoid_table(config, np.float64), sinusoid_table(config)
    assert narrow.dtype == np.float32
    assert wide.shape == (19, 15)
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_inventory_of_a_small_model() -> None:
    config = config_of({"num_encoder_layers": 1, "num_decoder_layers": 1})
    shapes = weight_shapes(config)
    assert shapes["encoder.embedding.weight"] == (23, 15)
    assert shapes["encoder.enc_layers.0.ffn.fc1.weight"] == (11, 15)
    assert shapes["encoder.enc_layers.0.ffn.fc2.weight"] == (15, 11)
    assert shapes["decoder.finalFc.weight"] == (19, 15)
    # one attention block has 8 tensors, a norm 2, a feed-forward 4
    assert len(shapes) == 2 + (8 + 2 + 4 + 2) + (8 + 2 + 8 + 2 + 4 + 2) + 2


def test_options_of_the_inventory() -> None:
    shapes = weight_shapes(
        config_of(
            {"encoder_positions": "learned", "position_offset": 2, "attention_bias": False}
            | {"output_bias": "none", "embedding_norm": True, "tied_embeddings": "all"}
        )
    )
    assert shapes["encoder.pos_embedding.weight"] == (19, 15)
    assert "decoder.pos_embedding.weight" not in shapes
    assert "decoder.embedding_norm.bias" in shapes
    assert not [name for name in shapes if "fcQ.bias" in name or "finalFc" in name]
    assert "decoder.embedding.weight" not in shapes


def test_inventory_of_a_model_with_relative_positions() -> None:
    values = {"encoder_positions": "relative", "decoder_positions": "relative", "norm": "rms"}
    values |= {"gated_ffn": True, "head_dim": 4, "tied_embeddings": "source_target"}
    values |= {"relative_buckets": 8, "relative_max_distance": 9}
    shapes = weight_shapes(config_of(values))
    assert (
        shapes["encoder.relative_bias.weight"] == shapes["decoder.relative_bias.weight"] == (8, 3)
    )
    layer = "decoder.dec_layers.1"
    assert shapes[f"{layer}.multiheadattention1.fcQ.weight"] == (12, 15)
    assert shapes[f"{layer}.multiheadattention2.fcOut.weight"] == (15, 12)
    assert shapes[f"{layer}.ffn.fc3.weight"] == (11, 15)
    assert not [name for name in shapes if "orm" in name and name.endswith("bias")]
    assert shapes["decoder.finalFc.weight"] == (19, 15)
    assert "decoder.embedding.weight" not in shapes
    own = weight_shapes(config_of(values | {"relative_per_layer": True}))
    tables = [name for name in own if "relative_bias" in name]
    assert tables == [
        *(f"encoder.enc_layers.{i}.multiheadattention.relative_bias.weight" for i in range(2)),
        *(f"decoder.dec_layers.{i}.multiheadattention1.relative_bias.weight" for i in range(2)),
    ]


def test_first_weights_where_positions_are_relative() -> None:
    """Queries carry the factor that scores lack, and rows for padding are rows of words alone."""
    values = {"decoder_positions": "relative", "relative_buckets": 8, "relative_max_distance": 9}
    plain = initial_weights(config_of({}), 5, np.float64)
    found = initial_weights(config_of(values | {"attention_scale": 1.0}), 5, np.float64)
    changed = {n for n in plain if not np.array_equal(plain[n], found[n])}
    assert changed == {n for n in plain if n.startswith("decoder.") and n.endswith("fcQ.weight")}
    for name in changed:
        np.testing.assert_allclose(found[name], plain[name] * 5**-0.5, rtol=1e-15)
    assert found["decoder.relative_bias.weight"][0].any()


def first_distances(half: str) -> list[int]:
    """The smallest distance to a key on the left of each bucket, of the usual 32 buckets."""
    positions = {"encoder_positions": "relative", "decoder_positions": "relative"}
    found = relative_buckets(config_of({"max_length": 200} | positions), half)
    assert found.shape == (399,)
    left = found[199::-1]
    assert (np.diff(left) >= 0).all()
    return [int(np.flatnonzero(left == bucket)[0]) for bucket in range(left.max() + 1)]


def test_buckets_of_distances() -> None:
    """Those of the published models; the encoder's for keys to the right are the upper half."""
    assert first_distances("encoder") == [*range(9), 12, 16, 23, 32, 46, 64, 91]
    far = [19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
    assert first_distances("decoder") == [*range(17), *far]
    config = config_of({"encoder_positions": "relative"})
    encoder, decoder = (relative_buckets(config, half) for half in ("encoder", "decoder"))
    assert np.array_equal(encoder[17:], encoder[15::-1] + 16)
    assert not decoder[17:].any()


def test_a_frozen_bias_is_stored_and_not_trained() -> None:
    config = config_of({"output_bias": "frozen"})
    assert set(weight_shapes(config)) - set(trained_names(config)) == {"decoder.finalFc.bias"}


def test_tied_names_are_stored_once() -> None:
    for config in pairwise_configs():
        stored = weight_shapes(config)
        for alias, kept in tied_weights(config).items():
            assert alias not in stored and kept in stored


def test_initialisation_by_name_reaches_every_weight_as_it_should() -> None:
    config = config_of({"encoder_positions": "learned", "norm_position": "pre"})
    weights = initial_weights(config, seed=5, dtype=np.float64)
    assert {name: array.shape for name, array in weights.items()} == weight_shapes(config)
    for name, array in weights.items():
        kind = leaf_kind(name)
        if kind == "kernel":
            limit = math.sqrt(6 / sum(array.shape))
            assert 0.8 * limit < np.abs(array).max() <= limit
            assert abs(array.std() - limit / math.sqrt(3)) < 0.15 * limit
        elif kind == "embedding":
            assert array[0].any() == ("pos_embedding" in name)
            assert 0.7 < array[1:].std() * math.sqrt(15) < 1.3
        else:
            assert np.array_equal(array, np.full_like(array, 1.0 if kind == "scale" else 0.0))


def test_first_weights_depend_on_seed_and_name_only() -> None:
    one, other = config_of({}), config_of({"num_encoder_layers": 1})
    more, fewer = initial_weights(one, 5), initial_weights(other, 5)
    assert all(np.array_equal(fewer[name], more[name]) for name in fewer)
    name = "decoder.finalFc.weight"
    assert not np.array_equal(more[name], initial_weights(one, 6)[name])
    q, k = (more[f"encoder.enc_layers.0.multiheadattention.fc{x}.weight"] for x in "QK")
    assert not np.array_equal(q, k)


def test_gain_scales_what_values_pass_through_and_nothing_else() -> None:
    plain, scaled = (initial_weights(config_of({}), 5, np.float64, gain) for gain in (1.0, 0.3))
    passing = {name for name in plain if not np.array_equal(plain[name], scaled[name])}
    ends = ("fcV.weight", "fcOut.weight", "ffn.fc1.weight", "ffn.fc2.weight", "ffn.fc3.weight")
    assert passing == {name for name in plain if name.endswith(ends)}
    assert len(passing) == 2 * 4 + 2 * 6
    for name in passing:
        np.testing.assert_allclose(scaled[name], 0.3 * plain[name], atol=1e-15, rtol=0)


def test_leaf_names_there_and_back() -> None:
    for config in pairwise_configs():
        for name, array in initial_weights(config, 0).items():
            flax, moved = to_flax(name, array)
            assert flax == flax_name(name) and canonical_name(flax) == name
            back, again = to_torch(flax, moved)
            assert back == name and np.array_equal(again, array)
            assert moved.shape == (array.shape[::-1] if flax.endswith("kernel") else array.shape)


@pytest.mark.parametrize("name", ["encoder.embedding.kernel", "decoder.lm_head.weight", "weight"])
def test_a_name_outside_the_table_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is no torch weight name"):
        flax_name(name)


def test_check_arrays_names_every_fault() -> None:
    arrays = {"a": np.zeros(2, np.float32), "b": np.zeros((2, 3)), "x": np.zeros(1, np.float32)}
    with pytest.raises(UserError) as caught:
        check_arrays(arrays, {"a": (3,), "b": (2, 3), "c": (5,)}, np.float32, "no fit")
    for parts in (
        ("a", "shape [2]", "[3]"),
        ("b", "dtype float64", "float32"),
        ("c", "missing", "float32 [5]"),
        ("x", "not a weight"),
    ):
        says(caught.value, *parts)


def test_what_is_no_array_of_numpy_is_named() -> None:
    given: dict = {"a": [1.0], "b": None, "c": memoryview(b"1234"), "d": np.zeros(1, np.float32)}
    with pytest.raises(UserError) as caught:
        check_arrays(given, dict.fromkeys(given, (1,)), np.float32, "no fit")
    assert len(caught.value.faults) == 3
    for parts in (("a", "list"), ("b", "NoneType"), ("c", "memoryview")):
        says(caught.value, *parts, "NumPy array")


def test_chunks_of_the_loss_stay_small() -> None:
    assert chunk_tokens(100, 43) == 100
    assert chunk_tokens(10**6, 10_000) * 10_000 <= CHUNK_NUMBERS
    assert chunk_tokens(10**6, 10**9) == FEWEST_TOKENS


def test_chunks_of_the_loss_are_of_almost_one_size() -> None:
    for tokens in range(1, 2_000, 7):
        size = chunk_tokens(tokens, 10_000)
        chunks = -(-tokens // size)
        assert 0 <= chunks * size - tokens < chunks


def test_keys_and_thresholds_of_dropout() -> None:
    keys = {batch_key(seed, number) for seed in range(5) for number in range(200)}
    assert len(keys) == 1000
    assert drop_threshold(0.5) == 2**31
    assert drop_threshold(1 - 1e-12) == 2**32 - 1
