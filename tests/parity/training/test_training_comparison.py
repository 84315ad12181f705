"""``python -m parity train``: the same training twice, and what is said where it is not."""

import dataclasses
import json

import numpy as np
import pytest
from messages import saying, says
from training_cases import SMALL, keep_programs, run

from parity.commands.train import main
from parity.training import steps as training
from parity.twins.cases import config_of, inputs
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import Batch
from training_recipe.options.settings import TrainingSettings
from transformer_spec import UserError

keep_programs()

ONE_LAYER = {"num_encoder_layers": 1, "num_decoder_layers": 1}
CONFIG = config_of({"norm_position": "pre", "dropout": 0.1} | ONE_LAYER)
SETTINGS = TrainingSettings(dtype="float64", device="cpu", warmup_steps=10)
RECIPE = """
[data]
data = "words.tsv"
columns = "word,sound"
source_vocabulary = "characters"
target_vocabulary = "whitespace"
[model]
preset = "tiny"
hidden_dim = 8
inner_dim = 12
num_heads = 2
num_encoder_layers = 1
num_decoder_layers = 1
dropout = 0.2
[optimisation]
batch_tokens = 128
batch_shapes = 1
steps = 4
dropout_rng = "portable"
"""


@pytest.fixture
def place(place):
    (place / "small.toml").write_text(RECIPE)
    return place


def batches(step: int) -> list[Batch]:
    source, target = inputs(CONFIG, step % 2)
    return [Batch(source, target[:, :-1].copy(), target[:, 1:].copy())]


def test_runs_with_dropout_coincide() -> None:
    curve = list(training.train_both(CONFIG, SETTINGS, batches, 60))
    assert [s.step for s in curve] == list(range(1, 61))
    passed, verdict = training.judge(curve, training.bound(CONFIG))
    assert passed and verdict.startswith("PASS: the same training")
    says(verdict, "float64", "60 steps")
    assert training.largest(curve, "loss")[0] <= 1e-10
    assert training.largest(curve, "gradient_norm")[0] <= 1e-9
    assert 0 < training.largest(curve, "weight_relative")[0] <= 1e-9
    assert curve[-1].loss.torch < 0.9 * curve[0].loss.torch


HEARING = dataclasses.replace(
    CONFIG, source_vocab_size=0, feature_dim=7, max_source_length=13, encoder_positions="frozen"
)


def of_features(step: int) -> list[Batch]:
    source, target = inputs(HEARING, step % 2)
    return [Batch(source, target[:, :-1].copy(), target[:, 1:].copy())]


def test_models_that_read_features_train_alike() -> None:
    curve = list(training.train_both(HEARING, SETTINGS, of_features, 5))
    assert training.largest(curve, "loss")[0] <= 1e-12
    assert "pos_embedding" not in " ".join(step.where for step in curve)


def test_stored_positions_that_one_side_trains_are_found(monkeypatch) -> None:
    """The gradient's norm shows them at once, the loss after the first step."""
    trained = dataclasses.replace(HEARING, encoder_positions="learned")
    make = training.make_jax
    monkeypatch.setattr(training, "make_jax", lambda c, s, w: make(trained, s, w))
    curve = list(training.train_both(HEARING, SETTINGS, of_features, 3))
    assert curve[0].loss.apart <= 1e-12 and curve[0].gradient_norm.apart > 1e-4
    passed, verdict = training.judge(curve, training.bound(HEARING))
    assert not passed
    says(verdict, "FAIL: not the same training", "first beyond it at step 2")


def test_bounds_are_the_design_s() -> None:
    assert training.bound(CONFIG) == 1e-8
    assert training.bound(dataclasses.replace(CONFIG, dropout=0.0)) == 1e-9


def test_another_epsilon_of_adam_is_found(monkeypatch) -> None:
    other = dataclasses.replace(SETTINGS, adam_eps=1e-8)
    make = training.make_jax
    monkeypatch.setattr(training, "make_jax", lambda c, _, w: make(c, other, w))
    curve = list(training.train_both(CONFIG, SETTINGS, batches, 5))
    passed, verdict = training.judge(curve, training.bound(CONFIG))
    assert not passed
    first = next(s.step for s in curve if s.loss.apart > 1e-8)
    says(verdict, f"first beyond it at step {first}", "largest at step 5")
    assert verdict.startswith("FAIL: not the same training") and first > 1
    assert curve[0].loss.apart <= 1e-12 < curve[0].weight


def test_averaged_weights_are_compared(monkeypatch) -> None:
    averaging = dataclasses.replace(SETTINGS, ema_decay=0.5)
    curve = list(training.train_both(CONFIG, averaging, batches, 3))
    assert training.measured(curve) == (*training.DIFFERENCES, "average")
    assert training.strayed_average(curve, 1e-15) is None and 0 < curve[-1].average
    assert training.judge(curve, 1e-8)[0]
    assert set(training.plain(curve)[0]["difference"]) == set(training.measured(curve))
    slower = dataclasses.replace(averaging, ema_decay=0.4)
    make = training.make_jax
    monkeypatch.setattr(training, "make_jax", lambda c, _, w: make(c, slower, w))
    curve = list(training.train_both(CONFIG, averaging, batches, 8))
    passed, verdict = training.judge(curve, 1e-8)
    assert not passed and verdict.startswith("FAIL: not the same averages")
    says(verdict, "at step 6")
    assert training.largest(curve, "loss")[0] <= 1e-12


@pytest.mark.parametrize("side", ["torch", "jax"])
def test_one_side_that_is_not_finite_fails(monkeypatch, side: str) -> None:
    make = getattr(training, f"make_{side}")

    def broken(config, settings, state):
        weights = {name: array.copy() for name, array in state.weights.items()}
        weights["decoder.finalFc.weight"][0, 0] = np.nan
        return make(config, settings, Checkpoint(weights))

    monkeypatch.setattr(training, f"make_{side}", broken)
    curve = list(training.train_both(CONFIG, SETTINGS, batches, 5))
    assert len(curve) == 1 and not training.judge(curve, 1e-8)[0]
    plain = training.plain(curve)[0]
    assert plain["loss"][side] is None and plain["difference"]["loss"] is None
    json.dumps(plain, allow_nan=False)


def test_divergence_on_both_sides_is_the_user_s(monkeypatch) -> None:
    weights = dict(training.first_weights(CONFIG, SETTINGS))
    weights["decoder.finalFc.weight"][0, 0] = np.nan
    monkeypatch.setattr(training, "first_weights", lambda *_: weights)
    with pytest.raises(UserError, check=saying("diverged", "both sides", "step 1")):
        list(training.train_both(CONFIG, SETTINGS, batches, 5))


@pytest.mark.thorough
def test_a_recipe_as_text_and_as_json(place, capsys) -> None:
    assert main(["small.toml", "--steps", "5", "--dtype", "float32"]) == 0
    text = capsys.readouterr().out
    assert "PASS: the same training" in text and "plot written to parity_train.png" in text
    assert "float32, largest difference of, not judged" in text
    assert (place / "parity_train.png").read_bytes().startswith(b"\x89PNG")
    # Words and flags in any order; the settings' dropout gives way to the command's.
    flags = ["--json", "--plot", "x.png", "--hidden-dim", "4", "--dropout", "0", "--steps", "3"]
    assert main([*flags, "small.toml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["config"]["hidden_dim"], found["config"]["dropout"]) == (4, 0)
    assert (found["bound"], found["passed"]) == (1e-9, True) and (place / "x.png").exists()
    assert [row["step"] for row in found["curves"]["float64"]] == [1, 2, 3]
    assert set(found["curves"]["float64"][0]["difference"]) == set(training.DIFFERENCES)


def test_a_step_of_several_batches_is_trained_on_all_of_them(place, monkeypatch, capsys) -> None:
    seen = []
    one_step = training.one_step

    def listening(ours, theirs, batches, step):
        seen.append([(batch.epoch, batch.index) for batch in batches])
        return one_step(ours, theirs, batches, step)

    monkeypatch.setattr(training, "one_step", listening)
    assert main(["small.toml", "--steps", "2", "--accumulate", "3", "--json"]) == 0
    assert [len(batches) for batches in seen] == [3, 3] and len(set(sum(seen, []))) == 6
    found = json.loads(capsys.readouterr().out)["curves"]["float64"]
    assert found[0]["loss"]["torch"] == pytest.approx(found[0]["loss"]["jax"], abs=1e-12)
    assert 0.5 < found[0]["loss"]["torch"] < 6  # a mean over the tokens of all three


def test_a_run_folder_and_its_settings(place, capsys) -> None:
    assert run("torch", [*SMALL, "--steps", "1", "--dropout-rng", "native", "--name", "a"]) == 0
    assert main(["runs/a"]) == 2
    assert "compare with --dropout-rng portable" in capsys.readouterr().err
    flags = ["--steps", "2", "--dropout-rng", "portable"]
    assert main(["runs/a/settings.json", *flags]) == 0
    assert (place / "runs/a/parity_train.png").exists()
    capsys.readouterr()
    assert main(["runs/a", *flags, "--hidden-dim", "4"]) == 2
    assert "has its own settings; --hidden-dim 4" in capsys.readouterr().err


def test_not_the_same_is_exit_status_1(place, monkeypatch, capsys) -> None:
    make = training.make_jax
    monkeypatch.setattr(
        training,
        "make_jax",
        lambda c, s, w: make(c, dataclasses.replace(s, label_smoothing=0.2), w),
    )
    assert main(["small.toml", "--steps", "1"]) == 1
    assert "FAIL: not the same training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0", "--dropout", "1"], "2 faults"),
        (["--plot", "x.pdf"], "must end in .png"),
        (["--plot", "nowhere/x.png"], "there is no folder nowhere"),
        (["nothing"], "nothing does not exist"),
        (["words.tsv"], "words.tsv is none of these"),
        (["a.toml", "b.toml"], "not a.toml and b.toml"),
        (["--hiden-dim", "8"], "did you mean --hidden-dim"),
        (["--resume", "runs/a"], "--resume goes on with a run"),
        (["small.toml", "--dropout-rng", "native"], "draws other masks in each framework"),
        (["small.toml", "--dropout-rng", "local"], "is not one of portable, native"),
    ],
)
def test_mistakes_are_one_message(place, capsys, arguments: list[str], message: str) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
