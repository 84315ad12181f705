"""Moving averages of the weights: their numbers, who uses them, how they are kept and converted."""

import json

import numpy as np
import pytest
from small_training import CONFIG, MAKERS, batch, changed, largest_difference, train

import flax_transformer
import torch_transformer
from convert import flax_to_torch
from convert.__main__ import main
from convert.checkpoints import (
    Checkpoint,
    load_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
    write_torch_checkpoint,
)
from training_recipe.options.schedule import ema_decay
from transformer_spec import UserError, initial_weights, trained_names
from twinformer.training.states import read_state, save_state, use_weights

WRITERS = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}
FROZEN = "decoder.finalFc.bias"


def test_the_decay_rises_to_its_value() -> None:
    settings = changed(ema_decay=0.75)
    decays = [ema_decay(step, settings) for step in (1, 2, 26, 27, 10**6)]
    assert decays == [2 / 11, 3 / 12, 0.75, 0.75, 0.75]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("float64")
def test_averages_are_what_is_judged_and_training_does_not_see_them(name: str) -> None:
    settings = changed(ema_decay=0.3)
    plain, backend = MAKERS[name](CONFIG, changed()), MAKERS[name](CONFIG, settings)
    expected = initial_weights(CONFIG, settings.seed, np.float64)
    for step in range(1, 6):
        assert train(plain, settings, step, step) == train(backend, settings, step, step)
        decay = min(0.3, (1 + step) / (10 + step))
        new = plain.state().weights
        expected = {n: decay * expected[n] + (1 - decay) * new[n] for n in expected}
    found = backend.state()
    assert largest_difference(found.weights, expected) <= 1e-14
    assert list(found.raw) == [n for n in found.weights if n != FROZEN]
    assert largest_difference(found.raw, {n: new[n] for n in found.raw}) == 0
    assert backend.evaluate(batch(0, 3)) != plain.evaluate(batch(0, 3))
    plain.restore(Checkpoint(found.weights))
    assert backend.evaluate(batch(0, 3)) == plain.evaluate(batch(0, 3))


def held(dtype: type = np.float32) -> Checkpoint:
    """A checkpoint in which weights, raw weights and moments all differ."""
    weights = initial_weights(CONFIG, 1, dtype)
    names = trained_names(CONFIG)
    raw, first, second = (
        {n: weights[n] + dtype(shift) for n in names} for shift in (0.5, 0.25, 0.125)
    )
    return Checkpoint(weights, first, second, 7, raw)


@pytest.mark.parametrize("writer", WRITERS)
def test_files_hold_both_and_the_averages_are_the_model(tmp_path, writer: str) -> None:
    WRITERS[writer](tmp_path, held())
    found = read_checkpoint(tmp_path)
    for part in ("weights", "raw", "first_moments", "second_moments"):
        assert largest_difference(getattr(found, part), getattr(held(), part)) == 0
    assert found.count == 7
    _, weights = load_weights_of(tmp_path, CONFIG)
    assert largest_difference(weights, held().weights) == 0


@pytest.mark.parametrize(("writer", "to"), [("torch", "flax"), ("jax", "torch")])
def test_conversion_takes_both_along(tmp_path, writer: str, to: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    WRITERS[writer](source, held())
    CONFIG.save(source / "config.json")
    assert main([str(source), str(tmp_path / "there"), "--to", to]) == 0
    back = {"flax": "torch", "torch": "flax"}[to]
    assert main([str(tmp_path / "there"), str(tmp_path / "back"), "--to", back]) == 0
    for place in ("there", "back"):
        found = read_checkpoint(tmp_path / place)
        assert largest_difference(found.raw, held().raw) == 0
        assert largest_difference(found.weights, held().weights) == 0
        assert largest_difference(found.first_moments, held().first_moments) == 0
    for twin in (torch_transformer, flax_transformer):
        model = twin.load(tmp_path / "there")
        loaded = twin.weights(model)
        name = "encoder.final_norm.bias"
        assert np.array_equal(loaded[name], held().weights[name])


def test_a_torch_optimizer_file_cannot_hold_raw_weights(tmp_path) -> None:
    """They stay beside the moments in safetensors."""
    source = tmp_path / "source"
    source.mkdir()
    write_torch_checkpoint(source, held())
    CONFIG.save(source / "config.json")
    there = tmp_path / "there"
    assert main([str(source), str(there), "--to", "torch", "--container", "pt"]) == 0
    assert sorted(path.name for path in there.iterdir()) == [
        "config.json", "conversion.json", "model.pt", "optimizer.safetensors",
    ]  # fmt: skip
    assert largest_difference(read_checkpoint(there).raw, held().raw) == 0
    entries = json.loads((there / "conversion.json").read_text())
    assert "raw/encoder.embedding.weight" in json.dumps(entries)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("part", ["weights", "raw", "second_moments"])
def test_what_is_not_finite_is_not_saved(tmp_path, writer: str, part: str) -> None:
    checkpoint = held()
    getattr(checkpoint, part)["encoder.final_norm.bias"][[1, 3]] = np.nan, np.inf
    with pytest.raises(UserError, match="encoder.final_norm.bias: 2 of 15 numbers"):
        WRITERS[writer](tmp_path, checkpoint)
    assert not list(tmp_path.iterdir())


def weights_of(backend) -> dict[str, np.ndarray]:
    """The weights of the framework's own model, under canonical names."""
    if backend.name == "torch":
        return torch_transformer.weights(backend.model)
    return flax_to_torch(flax_transformer.weights(backend.model))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("float64")
def test_the_model_is_the_averaged_one(name: str) -> None:
    settings = changed(ema_decay=0.5)
    backend = MAKERS[name](CONFIG, settings)
    train(backend, settings, 1, 3)
    found = backend.state()
    model = weights_of(backend)
    assert largest_difference(model, found.weights) == 0
    assert largest_difference({n: model[n] for n in found.raw}, found.raw) > 1e-4


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("float64")
def test_use_leaves_nothing_of_the_optimizer(tmp_path, name: str, decay: float) -> None:
    """Training goes on as from first weights, not with the moments of other ones."""
    settings = changed(ema_decay=decay)
    backend = MAKERS[name](CONFIG, settings)
    train(backend, settings, 1, 3)
    write_torch_checkpoint(tmp_path, Checkpoint(initial_weights(CONFIG, 7, np.float64)))
    use_weights(backend, tmp_path)
    found = backend.state()
    assert found.count == 0 and found.first_moments == {} == found.second_moments
    fresh = MAKERS[name](CONFIG, settings, initial_weights(CONFIG, 7, np.float64))
    assert train(backend, settings, 1, 3) == train(fresh, settings, 1, 3)
    assert largest_difference(weights_of(backend), weights_of(fresh)) == 0
    assert backend.state().count == 3


@pytest.mark.parametrize("name", MAKERS)
def test_save_and_restore_is_bit_for_bit(tmp_path, name: str) -> None:
    settings = changed(ema_decay=0.5, dtype="float32")
    backend, again = MAKERS[name](CONFIG, settings), MAKERS[name](CONFIG, settings)
    backend.restore(held())
    save_state(backend, tmp_path)
    again.restore(read_state(tmp_path))
    for part in ("weights", "raw", "first_moments", "second_moments"):
        expected = getattr(held(), part)
        assert largest_difference(getattr(again.state(), part), expected) == 0
    use_weights(again, tmp_path)
    assert largest_difference(again.state().weights, held().weights) == 0
    assert largest_difference(again.state().raw, {
        name: held().weights[name] for name in held().raw
    }) == 0  # fmt: skip
