"""Settings of other libraries as files have them."""

import pytest

from convert.families.base import Settings


@pytest.mark.parametrize(
    ("value", "allowed", "expected"),
    [
        (1, (None, True, False), True),
        (0, (None, True, False), False),
        (1.0, (True, False), True),
        (False, (None, 0, 7), 0),
        (True, (0, True, 1), True),
        (3.0, (3,), 3),
        ([], (None, []), []),
    ],
)
def test_a_value_is_given_as_the_one_that_is_allowed(value, allowed, expected):
    settings = Settings({"key": value})
    found = settings.only("key", *allowed)
    assert found == expected and type(found) is type(expected)
    assert not settings.faults.messages


def test_another_one_is_a_fault():
    settings = Settings({"key": 2})
    settings.only("key", None, True, False)
    assert settings.faults.messages == ["key is 2; only None or True or False can be expressed"]
