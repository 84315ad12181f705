"""The learning rate, against numbers worked by hand."""

import math

import pytest

from training_recipe.options.schedule import SCHEDULES, learning_rate
from training_recipe.options.settings import TrainingSettings


def rates(at, **settings):
    chosen = TrainingSettings(**{"peak_lr": 0.5, "warmup_steps": 4, "steps": 11} | settings)
    return [learning_rate(step, chosen) for step in at]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rises_in_a_line_to_the_exact_peak(schedule):
    assert rates([1, 2, 3, 4], schedule=schedule) == [0.125, 0.25, 0.375, 0.5]


def test_inverse_sqrt_is_that_of_the_paper():
    assert rates([16, 64, 400]) == [0.25, 0.125, 0.05]
    D, warmup = 512, 4000
    peak = D**-0.5 * warmup**-0.5
    for step in (1, 100, 3999, 4000, 4001, 100_000):
        paper = D**-0.5 * min(step**-0.5, step * warmup**-1.5)
        (ours,) = rates([step], peak_lr=peak, warmup_steps=warmup)
        assert ours == pytest.approx(paper, rel=1e-14)


def test_linear_reaches_zero_after_the_last_step():
    assert rates([5, 8, 11, 12, 50], schedule="linear") == [0.4375, 0.25, 0.0625, 0.0, 0.0]


def test_cosine_is_half_way_down_in_the_middle():
    half, last = rates([8, 11], schedule="cosine")
    assert half == pytest.approx(0.25)
    assert last == pytest.approx(0.25 * (1 - math.cos(math.pi / 8)))


def test_constant_stays():
    assert rates([5, 1000], schedule="constant") == [0.5, 0.5]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warmup_starts_at_most_at_the_peak(schedule):
    first, second = rates([1, 2], schedule=schedule, warmup_steps=0)
    assert 0 < second <= first <= 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_longer_than_the_run(schedule):
    assert rates([2, 3], schedule=schedule, steps=2) == [0.25, 0.375]


def test_doubles_not_singles():
    (rate,) = rates([1], peak_lr=1e-3, warmup_steps=3)
    assert isinstance(rate, float) and rate == 1e-3 * (1 / 3)


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="step is 0"):
        rates([0])
