"""Faults are collected, told in one message, and kept one by one."""

import pickle

import numpy as np
import pytest
from messages import says

from transformer_spec import ConfigError, Faults, TransformerConfig, UserError
from transformer_spec.door import exit_status


def raised(messages: list[str]) -> UserError:
    faults = Faults()
    for message in messages:
        faults.add(message)
    with pytest.raises(ConfigError) as caught:
        faults.raise_if_any("cannot start", ConfigError)
    return caught.value


@pytest.mark.parametrize("messages", [["one: two"], ["a", "b\n  c"]])
def test_every_fault_is_an_entry_and_in_the_message(messages) -> None:
    error = raised(messages)
    assert error.faults == messages
    assert all(message in str(error) for message in messages)


def test_many_of_a_kind_are_shown_by_the_first_and_counted() -> None:
    faults = Faults()
    for n in range(176):
        faults.add(f"missing 'layers.{n}'", "are missing")
        faults.require(n % 60 > 0, f"layers.{n} is odd")
    with pytest.raises(UserError) as caught:
        faults.raise_if_any("x does not fit")
    lines = str(caught.value).splitlines()
    assert len(caught.value.faults) == 179 and len(lines) == 8
    says(lines[0], "179 faults")
    says(lines[1], "layers.0")
    assert [line for line in lines if "more" in line] == ["  and 173 more are missing"]
    assert sum("odd" in line for line in lines) == 3


def test_faults_of_an_error_are_counted_one_by_one() -> None:
    faults = Faults()
    faults.add("one")
    faults.take(raised(["two", "three"]))
    with pytest.raises(UserError, match="3 faults") as caught:
        faults.raise_if_any("x")
    assert caught.value.faults == ["one", "two", "three"]


def test_few_of_a_kind_are_all_shown() -> None:
    faults = Faults()
    for n in range(6):
        faults.add(f"missing {n}", "are missing")
    with pytest.raises(UserError, check=lambda error: "missing 5" in str(error)):
        faults.raise_if_any("x")


def test_no_fault_raises_nothing() -> None:
    Faults().raise_if_any("cannot start")


def test_an_error_of_one_mistake_is_its_own_fault() -> None:
    assert UserError("no such file").faults == ["no such file"]


def test_faults_survive_a_process_boundary() -> None:
    again = pickle.loads(pickle.dumps(raised(["a", "b"])))
    assert again.faults == ["a", "b"] and str(again) == str(raised(["a", "b"]))


def test_faults_of_a_file_are_those_of_its_content(tmp_path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"format_version": 1, "model": {"hidden_dim": 4, "colour": 1}}')
    with pytest.raises(ConfigError) as caught:
        TransformerConfig.load(path)
    assert len(caught.value.faults) == 8  # seven sizes are missing
    assert any("'colour'" in fault for fault in caught.value.faults)


def test_memory_that_does_not_suffice_is_said(capsys) -> None:
    def command() -> None:
        np.empty(1 << 60, np.int8)

    assert exit_status(command, "stopped") == 2
    says(capsys.readouterr().err, "error", "memory")
