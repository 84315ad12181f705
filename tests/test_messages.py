"""The helper that other tests judge messages by misses nothing."""

import pytest
from messages import faults_say, saying, says

TEXT = "error: 2 faults\n  pad_id 0: the file says 13\n  norm_epsilon 1e-06, not 1.5: layers.0.norm"


@pytest.mark.parametrize(
    "parts",
    [("pad_id", 0, 13), (13, "pad_id"), ("2 faults",), ("1e-06", 1.5), ("norm",), ("not",)],
)
def test_all_parts_in_one_line(parts) -> None:
    says(TEXT, *parts)
    says(TEXT.splitlines(), *parts)
    with pytest.raises(ValueError, check=saying(*parts)):
        raise ValueError(TEXT)


@pytest.mark.parametrize(
    "parts",
    [("pad_id", 1), ("pad_id", 3), ("pad",), (5,), ("epsilon",), ("1e-0",)],
)
def test_a_part_of_a_word_or_another_line_does_not_count(parts) -> None:
    with pytest.raises(AssertionError, match="no line has all"):
        says(TEXT, *parts)
    with pytest.raises(AssertionError), pytest.raises(ValueError, check=saying(*parts)):
        raise ValueError(TEXT)


@pytest.mark.parametrize("given", ["", []])
def test_nothing_says_nothing(given) -> None:
    with pytest.raises(AssertionError):
        says(given, "a")


def test_faults_are_counted_and_in_order() -> None:
    faults_say(["a is 1", "b is 2"], ("a", 1), ("b", 2))
    for wrong in ([("a", 1)], [("b", 2), ("a", 1)], [("a", 1), ("b", 3)]):
        with pytest.raises(AssertionError):
            faults_say(["a is 1", "b is 2"], *wrong)
