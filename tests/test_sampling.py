"""Of cases that are many and alike some run, the same ones every time."""

import pytest
from sampling import spread

pytest_plugins = "pytester"
CONFTEST = """
from sampling import left_out

def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true")

def pytest_collection_modifyitems(config, items):
    gone = left_out(items) if not config.getoption("--thorough") else set()
    items[:] = [item for item in items if item not in gone]
"""
TESTS = """
import pytest

@pytest.mark.sampled(3)
@pytest.mark.parametrize("half", ["torch", "jax"])
@pytest.mark.parametrize("number", range(5))
def test_many(number, half):
    pass

@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "number", [0, 1, 2, pytest.param(3, marks=pytest.mark.thorough), 4]
)
def test_some_are_for_thorough_alone(number):
    pass

class TestInside:
    @pytest.mark.sampled(2)
    @pytest.mark.parametrize("number", range(3))
    def test_many(self, number):
        pass

@pytest.mark.thorough
def test_none():
    pass

def test_one():
    pass
"""
KEPT = [
    *("test_many[0-torch]", "test_many[2-torch]", "test_many[4-jax]"),
    *("test_some_are_for_thorough_alone[0]", "test_some_are_for_thorough_alone[4]"),
    *("test_many[0]", "test_many[2]", "test_one"),
]


@pytest.fixture
def kept(pytester: pytest.Pytester):
    """A function: names of the tests that run with these words."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\nmarkers =\n    sampled(n): n\n    thorough: all\n")

    def kept(*words: str) -> list[str]:
        _, record = pytester.inline_genitems(*words)
        (finished,) = record.getcalls("pytest_collection_finish")
        return [item.name for item in finished.session.items]

    return kept


@pytest.mark.parametrize(
    ("count", "wanted", "indices"),
    [
        (0, 3, set()),
        (1, 3, {0}),
        (3, 3, {0, 1, 2}),
        (10, 1, {0}),
        (10, 2, {0, 9}),
        (10, 4, {0, 3, 6, 9}),
        (11, 4, {0, 3, 6, 10}),
    ],
)
def test_cases_are_evenly_spread(count, wanted, indices):
    assert spread(count, wanted) == indices


def test_as_many_as_wanted():
    for count in range(40):
        assert [len(spread(count, n)) for n in range(50)] == [min(n, count) for n in range(50)]


def test_what_runs(kept):
    assert kept() == KEPT
    assert len(kept("--thorough")) == 10 + 5 + 3 + 1 + 1


def test_the_same_cases_whatever_is_selected(kept):
    assert kept("-k", "jax or torch") == KEPT[:3]
    assert kept("-k", "2-torch") == ["test_many[2-torch]"]
