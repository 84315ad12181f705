"""Valid JSON of wrong types in a run's files is named, field by field, and never a traceback."""

import copy
import dataclasses
import json

import pytest
from messages import says

from training_recipe.options.settings import TrainingSettings
from training_recipe.runs.integrity import damage, seal
from training_recipe.runs.metrics import read_metrics
from training_recipe.runs.progress import ADDED, LogWindow, Progress
from training_recipe.runs.record import RunRecord
from transformer_spec import UserError

VALUES = [None, True, -1, 3, 10**30, 2.5, "x", [], [1], {}, {"a": 1}]
WHOLE = Progress(
    step=4, epoch=1, index=2, backend="torch", validated=4, best_name="loss", best_score=1.5,
    best_loss=1.5, best_step=4, first_loss=3.0, metrics_lines=2, window=LogWindow(1, 2, 3.0, 4.0),
).to_dict()  # fmt: skip
FIELDS = [*WHOLE, *(f"window.{name}" for name in WHOLE["window"])]


def changed(content: dict, field: str, value: object) -> dict:
    result = copy.deepcopy(content)
    *within, name = field.split(".")
    part = result[within[0]] if within else result
    if value is KeyError:
        del part[name]
    else:
        part[name] = value
    return result


@pytest.mark.parametrize("field", FIELDS)
def test_progress(tmp_path, field) -> None:
    path, accepted = tmp_path / "progress.json", []
    for value in VALUES:
        path.write_text(json.dumps(changed(WHOLE, field, value)))
        try:
            Progress.load(path)
            accepted.append(value)
        except UserError as error:
            says(error, path)
            assert field in str(error)
    *within, name = field.split(".")
    before = (WHOLE[within[0]] if within else WHOLE)[name]
    kinds = {type(value) for value in accepted}
    assert kinds <= {type(before), type(None), int if isinstance(before, float) else type(before)}
    assert -1 not in accepted and 10**30 not in accepted


@pytest.mark.parametrize("field", [f for f in FIELDS if f not in ADDED])
def test_progress_that_lacks_a_field(tmp_path, field) -> None:
    path = tmp_path / "progress.json"
    path.write_text(json.dumps(changed(WHOLE, field, KeyError)))
    if field == "validated":  # which older versions did not write
        assert Progress.load(path).validated == 4
        return
    with pytest.raises(UserError) as caught:
        Progress.load(path)
    says(caught.value, path, field)


def test_every_field_at_fault_is_named(tmp_path) -> None:
    path = tmp_path / "progress.json"
    path.write_text(json.dumps(WHOLE | {"step": [], "epoch": "x", "window": {"colour": 1}}))
    with pytest.raises(UserError) as caught:
        Progress.load(path)
    for part in ("step", "epoch", "window.tokens", "window.colour"):
        says(caught.value, part)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "[" * 100_000, "1" * 5000])
def test_another_value_and_endless_nesting(tmp_path, content) -> None:
    path = tmp_path / "progress.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        Progress.load(path)
    says(caught.value, path, "damaged")


@pytest.mark.parametrize("files", VALUES[:-1] + [{"a": v} for v in VALUES])
def test_fingerprints(tmp_path, files) -> None:
    seal(tmp_path, Progress())
    path = tmp_path / "progress.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": files}))
    if files == {}:
        assert damage(tmp_path) is None
    else:
        says(str(damage(tmp_path)), path, "files" if not isinstance(files, dict) else "files.a")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b", "a\ud800"])
def test_fingerprints_of_no_file_below(tmp_path, name) -> None:
    seal(tmp_path, Progress())
    path = tmp_path / "progress.json"
    said = {name: {"bytes": 1, "sha256": ""}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": said}))
    says(str(damage(tmp_path)), path, "is no file's name")


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(RunRecord)])
def test_settings(tmp_path, field) -> None:
    path = tmp_path / "settings.json"
    RunRecord(TrainingSettings(), "torch", "a", 3, "b", "c", "d").save(path)
    whole = json.loads(path.read_text())
    for value in VALUES:
        path.write_text(json.dumps(whole | {field: value}))
        try:
            RunRecord.load(path)
            assert type(value) in (type(whole[field]), type(None)) or value == {}
        except UserError as error:
            says(error, path)
            assert field in str(error) or value == {"a": 1}


@pytest.mark.parametrize("field", ["kind", "step", "speed", "loss", "scores", "speed.time"])
def test_metrics(tmp_path, field) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = {"kind": "train", "step": 3, "loss": 1.5, "scores": {"bleu": 1.0}}
    whole |= {"speed": {"time": 1.5}}
    for value in VALUES:
        path.write_text(json.dumps(whole) + "\n" + json.dumps(changed(whole, field, value)))
        try:
            list(read_metrics(path))
            *within, name = field.split(".")
            before = (whole[within[0]] if within else whole)[name]
            number = isinstance(before, float) and type(value) is int
            assert type(value) is type(before) or number
        except UserError as error:
            says(error, path, "line 2")
            says(error, field if value != {"a": 1} else "damaged")
