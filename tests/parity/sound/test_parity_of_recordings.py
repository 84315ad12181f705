"""``python -m parity A B --audio FILE``: models and front ends on a recording."""

import dataclasses
import json

import numpy as np
import pytest
from messages import saying

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from parity_cases import WHISPER, failed, random_weights, write  # noqa: E402
from recording_cases import recordings, sound, write_wav  # noqa: E402

from parity.__main__ import main  # noqa: E402
from parity.comparison.comparison import compare  # noqa: E402
from parity.comparison.report import Report, json_of  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.sides.opening import open_side  # noqa: E402
from parity.sound.front_ends import SLIPS  # noqa: E402
from transformer_spec import UserError  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
SHORT = Settings((), gradients=False)
HEARING = dataclasses.replace(
    WHISPER, hidden_dim=6, num_heads=1, num_decoder_layers=1, max_source_length=1500
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of windows of 3000 frames, and a recording."""
    folder = tmp_path_factory.mktemp("sound")
    write(folder / "model", HEARING, random_weights(HEARING))
    write_wav(folder / "two.wav", sound(2.0))
    return folder


def on(place, **changes):
    given, settings = str(place / "model"), {"audio": str(place / "two.wav")} | changes
    return compare(given, given, dataclasses.replace(SHORT, **settings))


def test_without_another_front_end_a_note_says_so(place):
    report = on(place)
    assert report.same and report.batches == (((1, 3000, 5), (1, 9)),)
    assert "no other front end" in report.notes[0]


def test_a_wrong_front_end_is_named_and_the_model_is_not_blamed(place):
    from training_recipe.sound.audio import Audio

    samples = np.concatenate(list(Audio(place / "two.wav").blocks()))
    np.save(place / "htk.npy", SLIPS["HTK's mel scale for Slaney's"].features(samples, 5))
    report = on(place, features=str(place / "htk.npy"))
    assert not report.same and not report.rows[0].passed
    assert all(row.passed for row in report.rows[1:])
    assert "log-mel features of the file" in report.verdict
    assert report.verdict.endswith("features of the file: HTK's mel scale for Slaney's")


def test_a_wrong_model_beside_a_wrong_front_end(place, tmp_path):
    """Both are said, the front end first."""
    weights = random_weights(HEARING)
    name = "encoder.conv1.weight"
    other = write(tmp_path / "b", HEARING, weights | {name: weights[name][..., ::-1].copy()})
    np.save(tmp_path / "zeros.npy", np.zeros((3000, 5)))
    changes = {"audio": str(place / "two.wav"), "features": str(tmp_path / "zeros.npy")}
    settings = dataclasses.replace(SHORT, **changes)
    report = compare(str(place / "model"), str(other), settings)
    assert "log-mel features of the file is the first to differ" in report.verdict
    assert report.first.part == "encoder.conv1"
    assert report.verdict.endswith("no known slip of a front end explains them")
    names = [cause.name for cause in report.causes]
    assert names[:2] == ["front end", "kernels of convolutions flipped"]
    assert Report.from_dict(json.loads(json_of(report.to_dict()))).causes == report.causes


def test_the_extractor_of_a_folder_is_compared(place, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = write(tmp_path / "model", HEARING, random_weights(HEARING))
    transformers.WhisperFeatureExtractor(feature_size=5).save_pretrained(folder)
    settings = dataclasses.replace(SHORT, audio=str(place / "two.wav"))
    report = compare(str(folder), str(folder), settings)
    assert report.same and report.rows[0].part == "log-mel features of A"
    assert 0 < report.rows[0].float64 <= 5e-5
    transformers.WhisperFeatureExtractor(feature_size=5, hop_length=200).save_pretrained(folder)
    report = compare(str(folder), str(folder), settings)
    assert not report.same and "[2400, 5] for [3000, 5]" in report.verdict
    (folder / "preprocessor_config.json").write_text("[")
    with pytest.raises(UserError, check=saying("transformers cannot extract features")):
        compare(str(folder), str(folder), settings)


def test_the_command(place, capsys):
    given = str(place / "model")
    more = ["--audio", str(place / "two.wav"), "--precision", "--no-gradients", "--json"]
    assert main([given, given, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"]["audio"].endswith("two.wav") and found["float32_bound"] == 2e-5
    assert "--text: the models read features" in failed(capsys, given, given, "--text", "x.tsv")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_twins_on_real_speech_and_what_a_transcript_hides():
    """Ten of nineteen slips leave the text as it is; float64 logits show every one."""
    real = pytest.importorskip("real_whispers").real_whisper("tiny.en")
    pytest.importorskip("soundfile")
    from benchmarks.speech_slips import HONEST, measure, opened

    recording = recordings() / "jfk.flac"
    both = "torch", "jax"
    settings = Settings(("float32",), False, audio=str(recording), frameworks=both)
    report = compare(str(real), str(real), settings)
    assert report.same and report.agreement.max_abs <= 1e-10
    assert report.budget["float32"].a.over_spread <= 2e-5 < report.budget["float32"].a.max_abs
    rows = {row.slip: row for row in measure(opened(real, recording))}
    assert rows.pop("none").text.startswith(" And so my fellow Americans ask not")
    assert rows.pop(HONEST).logits <= 1e-5
    assert len(rows) == 19 and all(row.logits > 1e-3 for row in rows.values())
    assert sum(row.same_text for row in rows.values()) == 10
    assert open_side(str(real)).config.feature_dim == 80
