"""Both backends train alike, and a run may change its framework on the way."""

import dataclasses

import jax
import numpy as np
import pytest
import small_training
from small_training import MAKERS

from parity.twins.cases import config_of, inputs
from training_recipe.batching.batches import Batch
from training_recipe.options.presets import PRESETS
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Search
from transformer_spec import UserError, initial_weights
from twinformer.training.states import read_state, save_state

EXACT = dataclasses.replace(small_training.SETTINGS, warmup_steps=10)
CONFIG = config_of(
    {"norm_position": "pre", "tied_embeddings": "target_output", "output_bias": "frozen"}
    | {"dropout": 0.0, "activation": "gelu", "encoder_positions": "frozen"}
)
NOISY = dataclasses.replace(CONFIG, dropout=0.2, attention_dropout=0.1, activation_dropout=0.1)


def some_batches() -> list[Batch]:
    found = []
    for seed in range(3):
        source, target = inputs(CONFIG, seed)
        source[4, :3] = 7
        found.append(Batch(source, target[:, :-1].copy(), target[:, 1:].copy()))
    return found


BATCHES = some_batches()


def train(backend, settings: TrainingSettings, first: int, last: int) -> list[float]:
    """The loss per token of each step from ``first`` to ``last``, the batches taking turns."""
    return small_training.train(backend, settings, first, last, lambda step: BATCHES[step % 3])


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CONFIG, id="no dropout", marks=pytest.mark.thorough),
        pytest.param(NOISY, id="dropout"),
    ],
)
@pytest.mark.usefixtures("float64")
def test_hundred_steps_from_the_same_weights(config) -> None:
    ours, theirs = MAKERS["torch"](config, EXACT), MAKERS["jax"](config, EXACT)
    difference = np.subtract(train(ours, EXACT, 1, 100), train(theirs, EXACT, 1, 100))
    assert np.abs(difference).max() <= 1e-9
    left, right = ours.state(), theirs.state()
    for a, b in ((left.weights, right.weights), (left.second_moments, right.second_moments)):
        assert list(a) == list(b)
        assert max(np.abs(a[name] - b[name]).max() for name in a) <= 1e-9


@pytest.mark.usefixtures("float64")
def test_the_preset_with_relative_positions_trains_alike() -> None:
    """The smallest model that is what the preset makes, in both frameworks and computed again."""
    sizes = {"hidden_dim": 15, "inner_dim": 11, "num_heads": 3, "max_length": 17}
    small = {"num_encoder_layers": 1, "num_decoder_layers": 1, "relative_max_distance": 20}
    config = config_of(PRESETS["tiny-t5"]["model"] | sizes | small | {"dropout": 0.1})
    assert (config.encoder_positions, config.norm, config.attention_bias) == (
        "relative", "rms", False
    )  # fmt: skip
    ours, theirs = MAKERS["torch"](config, EXACT), MAKERS["jax"](config, EXACT)
    losses = train(ours, EXACT, 1, 12)
    assert np.abs(np.subtract(losses, train(theirs, EXACT, 1, 12))).max() <= 1e-9
    assert losses[-1] < losses[0]


@pytest.mark.usefixtures("float64")
def test_training_learns_and_leaves_what_is_frozen_alone() -> None:
    first = initial_weights(CONFIG, 0, np.float64)
    first["decoder.finalFc.bias"] += np.linspace(0, 1, 19)
    for make in MAKERS.values():
        backend = make(CONFIG, EXACT, first)
        losses = train(backend, EXACT, 1, 60)
        assert losses[-1] < 0.8 * losses[0]
        after = backend.state()
        for name in ("decoder.finalFc.bias", "encoder.pos_embedding.weight"):
            assert np.array_equal(after.weights[name], first[name])
            assert name not in after.first_moments
        name = "encoder.embedding.weight"
        assert not np.array_equal(after.weights[name][5:], first[name][5:])


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("float64")
def test_without_weights_it_begins_from_those_of_the_settings(name: str) -> None:
    for gain in (1.0, 0.3):
        settings = dataclasses.replace(EXACT, init_gain=gain)
        expected = initial_weights(CONFIG, settings.seed, np.float64, gain)
        found = MAKERS[name](CONFIG, settings).state().weights
        assert list(found) == list(expected)
        assert all(np.array_equal(found[weight], expected[weight]) for weight in expected)


def test_the_jax_backend_has_numbers_of_its_own() -> None:
    """64-bit ones in its calls, whatever the process has, which stays as it was."""
    backend, theirs = MAKERS["jax"](CONFIG, EXACT), MAKERS["torch"](CONFIG, EXACT)
    difference = np.subtract(train(backend, EXACT, 1, 3), train(theirs, EXACT, 1, 3))
    assert np.abs(difference).max() <= 1e-12
    assert backend.evaluate(BATCHES[0])[0] == pytest.approx(theirs.evaluate(BATCHES[0])[0], 1e-12)
    found = backend.state()
    backend.restore(found)
    for part in (found.weights, found.second_moments, backend.state().first_moments):
        assert {array.dtype.name for array in part.values()} == {"float64"}
    source, search = BATCHES[0].source, Search(beam=2)
    ids = [[best.ids for best in b.decode(source, search)[0]] for b in (backend, theirs)]
    assert ids[0] == ids[1] and backend.encode(source).dtype == np.float64
    assert not jax.config.read("jax_enable_x64")


@pytest.mark.parametrize(("writer", "reader"), [("torch", "jax"), ("jax", "torch")])
@pytest.mark.usefixtures("float64")
def test_changing_the_framework_midway(tmp_path, writer: str, reader: str) -> None:
    whole, half = MAKERS[writer](CONFIG, EXACT), MAKERS[writer](CONFIG, EXACT)
    expected = train(whole, EXACT, 1, 60)
    train(half, EXACT, 1, 30)
    save_state(half, tmp_path)
    other = MAKERS[reader](CONFIG, EXACT)
    other.restore(read_state(tmp_path))
    assert np.abs(np.subtract(train(other, EXACT, 31, 60), expected[30:])).max() <= 1e-9


@pytest.mark.thorough
@pytest.mark.parametrize(("writer", "reader"), [("torch", "jax"), ("jax", "torch")])
def test_no_bump_in_float32_with_dropout(tmp_path, writer: str, reader: str) -> None:
    """The change is no larger than what float32 rounding grows to by itself."""
    settings = dataclasses.replace(EXACT, dtype="float32")
    whole, half = MAKERS[writer](NOISY, settings), MAKERS[writer](NOISY, settings)
    expected = train(whole, settings, 1, 40)
    train(half, settings, 1, 20)
    save_state(half, tmp_path)
    other = MAKERS[reader](NOISY, settings)
    other.restore(read_state(tmp_path))
    assert np.abs(np.subtract(train(other, settings, 21, 40), expected[20:])).max() <= 1e-3


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("float64")
def test_save_and_restore_is_bit_for_bit(tmp_path, name: str) -> None:
    backend = MAKERS[name](NOISY, EXACT)
    train(backend, EXACT, 1, 7)
    save_state(backend, tmp_path)
    again = MAKERS[name](NOISY, EXACT)
    again.restore(read_state(tmp_path))
    assert train(again, EXACT, 8, 12) == train(backend, EXACT, 8, 12)


@pytest.mark.parametrize("name", MAKERS)
def test_evaluation_is_plain_cross_entropy_without_dropout(name: str) -> None:
    settings = dataclasses.replace(EXACT, dtype="float32", label_smoothing=0.5)
    backend = MAKERS[name](NOISY, settings)
    first, again = backend.evaluate(BATCHES[0]), backend.evaluate(BATCHES[0])
    assert first == again
    assert first[1] == BATCHES[0].tokens
    assert first[0] / first[1] == pytest.approx(np.log(19), rel=0.5)


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path, name: str) -> None:
    settings = dataclasses.replace(EXACT, dtype="float32")
    save_state(MAKERS[name](CONFIG, settings), tmp_path)
    other = MAKERS[name](config_of({"num_heads": 3, "norm_position": "pre"}), settings)
    with pytest.raises(UserError) as caught:
        other.restore(read_state(tmp_path))
    assert "does not fit the config" in str(caught.value)
    assert "decoder.finalFc.weight" in str(caught.value)


@pytest.mark.parametrize("name", MAKERS)
def test_an_absent_device_is_one_clear_error(name: str) -> None:
    settings = dataclasses.replace(EXACT, dtype="float32", device="tpu")
    with pytest.raises(UserError, match="TPU|tpu"):
        MAKERS[name](CONFIG, settings)


@pytest.mark.usefixtures("float64")
def test_a_second_run_of_the_same_model_compiles_nothing() -> None:
    first = MAKERS["jax"](CONFIG, EXACT)
    train(first, EXACT, 1, 3)
    compiled = first.programs.gradients.program, first.programs.update
    sizes = [program._cache_size() for program in compiled]
    second = MAKERS["jax"](CONFIG, dataclasses.replace(EXACT, seed=7, steps=9))
    train(second, EXACT, 1, 3)
    assert second.programs is first.programs
    assert [program._cache_size() for program in compiled] == sizes


@pytest.mark.parametrize(
    "change", [{"label_smoothing": 0.3}, {"weight_decay": 0.5}, {"dtype": "float32"}], ids=str
)
def test_programs_of_other_settings_are_others(change) -> None:
    same, other = EXACT, dataclasses.replace(EXACT, **change)
    held = [MAKERS["jax"](CONFIG, settings).programs for settings in (same, other)]
    assert held[0] is not held[1]
