"""A folder of a model of speech, and files: both frameworks write the same; what is refused."""

from pathlib import Path

import numpy as np
import pytest
from real_whispers import real_whisper
from recording_cases import recordings, sound, write_wav
from speech_fakes import Letters
from speech_folders import speech_config, write_speech_folder

import twinformer
from training_recipe.sound.audio import Audio
from training_recipe.transcription.fallback import Thresholds
from training_recipe.transcription.settings import TranscriptionSettings
from transformer_spec import TransformerConfig, UserError
from twinformer.transcribing.transcriber import Transcriber, check_hears

NONE = Thresholds(None, None, None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {
        "english": write_speech_folder(place / "english"),
        "several": write_speech_folder(place / "several", "several", np.float64),
    }


@pytest.fixture
def file(tmp_path):
    return write_wav(tmp_path / "a.wav", sound(2.0))


def test_both_frameworks_write_the_same(folders, file, monkeypatch):
    found = []
    for backend in ("torch", "jax"):
        transcriber = Transcriber(folders["several"], backend=backend)
        monkeypatch.setattr(transcriber, "tokenizer", Letters())
        found.append(transcriber(file, max_length=5, temperatures=(0.0,), thresholds=NONE))
    one, two = found
    assert (one.language, one.seconds) == (two.language, 2.0) and one.text == two.text
    assert one.language_probability == pytest.approx(two.language_probability, abs=1e-12)
    (said,), (also,) = one.segments, two.segments
    assert said.tokens == also.tokens and len(said.tokens) == 5
    assert said.avg_logprob == pytest.approx(also.avg_logprob, abs=1e-11)
    assert said.no_speech_prob == pytest.approx(also.no_speech_prob, abs=1e-12)


def test_one_file_several_files_and_a_broken_one(folders, file, tmp_path):
    transcriber = twinformer.Transcriber(folders["english"], backend="torch", batch_size=2)
    (tmp_path / "empty.wav").touch()
    settings = TranscriptionSettings(max_length=3, temperatures=(0.0,))
    found = dict(transcriber.each([file, tmp_path / "empty.wav", file], settings))
    assert found[0] == found[2] and isinstance(found[1], UserError)
    asked = {"max_length": 3, "temperatures": (0.0,)}
    assert transcriber(file, **asked) == transcriber([str(file)], **asked)[0] == found[0]
    with pytest.raises(UserError, match="empty.wav is empty"):
        transcriber([file, tmp_path / "empty.wav"], **asked)


def test_english_alone_takes_no_other_language_and_no_task(folders, file):
    transcriber = Transcriber(folders["english"], backend="torch")
    for asked in ({"language": "fr"}, {"task": "translate"}):
        with pytest.raises(UserError, match="this model transcribes English alone"):
            transcriber(file, **asked)
    with pytest.raises(
        UserError, match="the model has no language 'xx'; it has 99, such as en, zh"
    ):
        Transcriber(folders["several"], backend="torch")(file, language="xx")
    with pytest.raises(UserError, match="no setting 'timestamp'; did you mean timestamps"):
        transcriber(file, timestamp=True)


def test_models_that_hear_nothing_and_folders_without_a_tokenizer(tmp_path):
    write_speech_folder(tmp_path / "mine")
    (tmp_path / "mine/vocabulary/tokenizer.json").unlink()
    with pytest.raises(UserError, match="put tokenizer.json of a Whisper of 51864 tokens into"):
        Transcriber(tmp_path / "mine")
    words = TransformerConfig(
        source_vocab_size=9, target_vocab_size=9, hidden_dim=4, inner_dim=4, num_heads=1,
        num_encoder_layers=1, num_decoder_layers=1, max_length=8,
    )  # fmt: skip

    class Opened:
        path, config = "mine", words

    with pytest.raises(UserError, match="reads tokens and hears nothing"):
        check_hears(Opened)
    Opened.config = speech_config(51864).__class__(
        **{**vars(speech_config(51864)), "max_source_length": 750}
    )
    with pytest.raises(UserError, match="hears windows of 15 s"):
        check_hears(Opened)


GOLDEN = {
    "tiny.en": {
        "jfk.flac": " And so my fellow Americans ask not what your country can do for you, ask "
        "what you can do for your country.",
        "english.wav": " 1, 2, 3.",
        "bonsai.flac": " The birch cano, slid on the smooth planks.",
    },
    "base": {
        "jfk.flac": " And so my fellow Americans, ask not what your country can do for you, ask "
        "what you can do for your country.",
        "french.aiff": " et c'est la dictée numéro 1.",
        "chinese.flac": "扎自己的腳",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("name", GOLDEN)
def test_real_weights_and_real_recordings(name, backend):
    given = real_whisper(name)
    pytest.importorskip("soundfile", reason="soundfile, of twinformer[speech]")
    files = [recordings() / each for each in GOLDEN[name]]
    found = Transcriber(given, backend=backend)(files)
    assert {Path(each.path).name: each.text for each in found} == GOLDEN[name]
    if name == "base":
        assert [each.language for each in found] == ["en", "fr", "zh"]
        (translated,) = Transcriber(given, backend=backend)([files[1]], task="translate")
        assert translated.text == " and that's the dictation number 1."


JOINED = ("jfk.flac", "english.wav", "bonsai.flac", "jfk.flac", "stereo.wav")
ASK = " And so my fellow Americans ask not what your country can do for you"
LAST = (
    " He begins to rise if he seems to play against the wizard who would vanish behind the curtain "
    "on the left."
)
# What the published program says of them, by tiny.en, greedily and without previous text.
SEGMENTS = [
    (0.0, 8.0, ASK),
    (8.0, 11.0, " ask what you can do for your country"),
    (11.0, 14.0, " 1, 2, 3"),
    (14.0, 18.0, " The bitch can use slit on the smooth planks"),
    (18.0, 26.0, ASK),
    (26.0, 29.0, " ask what you can do for your country"),
    (29.0, 34.0, LAST),
]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_more_than_a_window_of_real_speech(backend, tmp_path):
    folder = real_whisper("tiny.en")
    pytest.importorskip("soundfile", reason="soundfile, of twinformer[speech]")
    parts = [[*Audio(recordings() / name).blocks(), np.zeros(8000)] for name in JOINED]
    samples = np.concatenate([block for part in parts for block in part])
    file = write_wav(tmp_path / "joined.wav", np.clip(samples, -1, 1))
    found = Transcriber(folder, backend=backend)(file)
    assert [(each.start, each.end, each.text) for each in found.segments] == SEGMENTS
