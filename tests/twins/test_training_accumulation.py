"""A step of several batches is the step of one batch that has all their pairs."""

import numpy as np
import pytest
from messages import says
from small_training import CONFIG, MAKERS, SETTINGS, batch, changed, largest_difference, train
from training_cases import SMALL, arrays, assert_same_run, metrics, run, signal_after

from flax_transformer.step import Programs, ProgramSettings
from training_recipe.batching.batches import BatchPlan
from transformer_spec.dropout_keys import batch_key, batch_keys
from twinformer.training.states import read_state, save_state

RATE = 1e-3


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("float64")
def test_the_step_of_one_batch_with_the_same_pairs(name: str) -> None:
    """The parts differ in tokens, with torch in rows and length too; the gradient is clipped."""
    whole, split = MAKERS[name](CONFIG, SETTINGS), MAKERS[name](CONFIG, SETTINGS)
    parts = [batch(0, 3), batch(3, 3), batch(6, 3)]
    if name == "torch":
        parts = [batch(0, 2), batch(2, 5, target=4), batch(7, 2)]
    assert len({part.tokens for part in parts}) > 1
    for step in (1, 2, 3):
        one = whole.train_step([batch(0, 9)], step, RATE)
        several = split.train_step(parts, step, RATE)
        assert several.tokens == one.tokens == sum(part.tokens for part in parts)
        assert float(several.loss_sum) == pytest.approx(float(one.loss_sum), abs=1e-10)
        norms = float(several.gradient_norm), float(one.gradient_norm)
        assert norms[0] == pytest.approx(norms[1], abs=1e-10)
        assert norms[0] > SETTINGS.clip_norm
    left, right = whole.state(), split.state()
    assert largest_difference(left.weights, right.weights) <= 1e-10
    assert largest_difference(left.second_moments, right.second_moments) <= 1e-10


@pytest.mark.usefixtures("float64")
def test_what_is_compiled_does_not_grow_with_the_batches_of_a_step() -> None:
    backend = MAKERS["jax"](CONFIG, SETTINGS)
    backend.programs = Programs(CONFIG, ProgramSettings.of(SETTINGS), backend.place)
    compiled = backend.programs.gradients.program, backend.programs.update
    sizes = []
    for step, count in enumerate((2, 1, 4), 1):
        backend.train_step([batch(part, 3) for part in range(count)], step, RATE)
        sizes.append([program._cache_size() for program in compiled])
    assert sizes[0] == sizes[1] == sizes[2] and sizes[0][0] == 1


def test_dropout_of_each_batch_has_its_own_key() -> None:
    assert batch_keys(7, 5, 1) == [batch_key(7, 5)]
    keys = [key for step in range(1, 50) for key in batch_keys(7, step, 3)]
    assert len(set(keys)) == len(keys)
    assert keys == [batch_key(7, number) for number in range(1, 148)]


def test_batches_of_a_step_are_a_function_of_the_step() -> None:
    pairs = [([5] * (1 + n % 6), [6] * (1 + n % 4)) for n in range(23)]
    plan, again = BatchPlan(pairs, 24, 3, seed=1), BatchPlan(pairs, 24, 3, seed=1)
    again.batches(9, 3)
    number = 0
    for step in (1, 2, 3, 4):
        for ours, theirs in zip(plan.batches(step, 3), again.batches(step, 3), strict=True):
            number += 1
            expected = plan.batch(number)
            for found in (ours, theirs):
                assert (found.epoch, found.index) == (expected.epoch, expected.index)
                assert np.array_equal(found.source, expected.source)


ACCUMULATING = [*SMALL, "--accumulate", "3"]


def test_a_run_counts_all_tokens_and_says_what_a_step_is(place, quick, capsys) -> None:
    assert run("numpy", [*SMALL, "--name", "one"]) == 0
    assert run("numpy", [*ACCUMULATING, "--name", "three"]) == 0
    says(capsys.readouterr().out, "3 batches", "1.3 an epoch")
    one, three = (metrics(place / "runs" / name) for name in ("one", "three"))
    tokens = [sum(m["tokens"] for m in ms if m["kind"] == "train") for ms in (one, three)]
    assert tokens[1] == 3 * tokens[0]  # 12 and 36 batches: 3 and 9 epochs
    assert [m["epoch"] for m in three if m["kind"] == "train"] == [3, 5, 7, 9]


@pytest.mark.parametrize(
    "name", ["numpy", "torch", pytest.param("jax", marks=pytest.mark.thorough)]
)
def test_interrupted_and_resumed(name: str, place, quick) -> None:
    """Bit for bit, moving averages and the weights beside them included."""
    averaging = [] if name == "numpy" else ["--ema-decay", "0.9"]
    given = [*ACCUMULATING, *averaging]
    assert run(name, [*given, "--name", "whole"]) == 0
    assert run(name, [*given, "--name", "a"], signal_after(7)) == 130
    assert run(name, ["--resume", "runs/a"]) == 0
    found = arrays(place / "runs/a/checkpoints/step_00000012")
    assert any(part.startswith("raw/") for part in found) == bool(averaging)
    assert_same_run(place / "runs/a", place / "runs/whole")


@pytest.mark.parametrize(("writer", "reader"), [("torch", "jax"), ("jax", "torch")])
@pytest.mark.usefixtures("float64")
def test_changing_the_framework_with_averages(tmp_path, writer: str, reader: str) -> None:
    """Accumulated gradients, trained and averaged weights go on in the other framework."""
    settings = changed(accumulate=2, ema_decay=0.9)
    whole, half = MAKERS[writer](CONFIG, settings), MAKERS[writer](CONFIG, settings)
    expected = train(whole, settings, 1, 8)
    train(half, settings, 1, 4)
    save_state(half, tmp_path)
    other = MAKERS[reader](CONFIG, settings)
    other.restore(read_state(tmp_path))
    assert np.abs(np.subtract(train(other, settings, 5, 8), expected[4:])).max() <= 1e-10
    left, right = whole.state(), other.state()
    assert largest_difference(left.raw, right.raw) <= 1e-9
    assert largest_difference(left.weights, right.weights) <= 1e-9
    assert largest_difference(left.raw, {n: left.weights[n] for n in left.raw}) > 1e-4
    ours, theirs = whole.evaluate(batch(0, 7)), other.evaluate(batch(0, 7))
    assert ours[0] == pytest.approx(theirs[0], abs=1e-9)
