"""The command: what it prints and writes, in which order, and what it says of broken files."""

import io
import json
import sys

import numpy as np
import pytest
from recording_cases import sound, write_wav
from speech_fakes import ENGLISH, SEVERAL, FakeModel

from transformer_spec import UserError
from twinformer.__main__ import main
from twinformer.commands.transcribe_flags import parse
from twinformer.transcribing.transcriber import Transcriber

T = ENGLISH.first_timestamp


@pytest.fixture
def fake(monkeypatch):
    """The model in the place of every folder: it says "hi" up to half of a second."""
    model = FakeModel(lambda features, search: ((7, 8, T + 25), -1.0))

    def made(self, folder, **settings):
        self.tokens, self.backend, self.notes = model.tokens, "torch", []
        self.batch_size, self.language = settings["batch_size"], None

    monkeypatch.setattr(Transcriber, "__init__", made)
    monkeypatch.setattr(Transcriber, "speech_model", lambda self: model.model())
    monkeypatch.setattr("twinformer.frameworks.prepare_process", lambda *given: None)
    return model


@pytest.fixture
def talk(tmp_path):
    return write_wav(tmp_path / "talk.wav", sound(1.0))


def run(capsys, *words):
    status = main(["transcribe", "model", *map(str, words)])
    return status, *capsys.readouterr()


def test_one_file_is_printed(fake, talk, capsys):
    assert run(capsys, talk) == (0, "hi\n", "")
    assert fake.asked[0].timestamps is None
    assert run(capsys, talk, "--timestamps") == (0, "[00:00.000 --> 00:00.500] hi\n", "")
    assert fake.asked[-1].timestamps is not None
    assert run(capsys, talk, "--output-format", "srt")[1].startswith("1\n00:00:00,000 --> ")


def test_several_files_and_a_broken_one(fake, talk, tmp_path, capsys):
    (tmp_path / "empty.wav").touch()
    status, out, err = run(capsys, talk, tmp_path / "empty.wav", talk, "--batch-size", 1)
    assert status == 2
    assert out == f"{talk}:\nhi\n\n{talk}:\nhi\n\n"
    assert err == f"error: {tmp_path / 'empty.wav'} is empty\n"
    status, out, err = run(capsys, talk, talk, "--output-format", "json")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["hi", "hi"]


def test_a_file_in_the_place_of_the_folder_of_outputs(fake, talk, tmp_path, capsys):
    (tmp_path / "pairs.csv").touch()
    status, _, err = run(capsys, talk, "--output-dir", tmp_path / "pairs.csv")
    assert (status, fake.asked) == (2, [])
    assert (
        err == f"error: cannot write into {tmp_path / 'pairs.csv'}: it is a file; name a folder\n"
    )
    err = run(capsys, talk, "--output-dir", tmp_path / "pairs.csv/new")[2]
    assert f"cannot write {tmp_path / 'pairs.csv/new'}: {tmp_path / 'pairs.csv'} is a file" in err


def test_files_are_written(fake, talk, tmp_path, capsys):
    out = tmp_path / "new" / "subtitles"
    other = write_wav(tmp_path / "b.wav", np.zeros(160))
    given = (talk, other, "--output-dir", out, "--output-format", "all")
    assert run(capsys, *given) == (0, "", "")
    kinds = ("json", "srt", "tsv", "txt", "vtt")
    assert sorted(p.name for p in out.iterdir()) == [
        f"{name}.{kind}" for name in ("b", "talk") for kind in kinds
    ]
    assert (out / "talk.txt").read_text() == "hi\n"
    assert run(capsys, *given)[0] == 0  # and written again


def test_a_file_that_is_cut_off_is_said(fake, talk, capsys):
    talk.write_bytes(talk.read_bytes()[:16044])
    status, out, err = run(capsys, talk)
    assert (status, out) == (0, "hi\n")
    assert err == f"warning: {talk} is cut off: it has 0.5 of the 1.0 seconds that it speaks of\n"


def test_standard_input(fake, talk, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(talk.read_bytes())))
    assert run(capsys, "-") == (0, "hi\n", "")


def test_language_and_task(fake, talk, capsys):
    fake.tokens = SEVERAL
    assert run(capsys, talk, "--language", "fr", "--task", "translate")[0] == 0
    assert fake.asked[-1].prompt[1:3] == (SEVERAL.language("fr"), SEVERAL.translate)
    fake.tokens = ENGLISH
    status, out, err = run(capsys, talk, "--language", "fr")
    assert (status, out) == (2, "") and "this model transcribes English alone" in err


def test_flags_become_settings():
    asked = parse(
        "m a.wav --temperatures 0 --no-speech-threshold none --log-probability-threshold -2 "
        "--beam 5 --chunks --seed 3".split()
    ).settings
    assert (asked.temperatures, asked.beam, asked.chunks, asked.seed) == ((0.0,), 5, True, 3)
    limits = asked.thresholds
    assert (limits.no_speech, limits.log_probability, limits.compression_ratio) == (None, -2, 2.4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("m", "the following arguments are required: FILE"),
        ("m a.wav --output-format all", "--output-format all needs --output-dir FOLDER"),
        ("m a.wav b.wav --output-format srt", "--output-format srt of several files needs"),
        ("m a/x.wav b/x.mp3 --output-dir o", "several files would be written to x in o"),
        ("m - -", "standard input (-) can be read once"),
        ("m a.wav --batch-size 0", "--batch-size is 0"),
        ("m a.wav --beam 0", "beam is 0; it must be a whole number from 1 on"),
        ("m a.wav --temperatures warm", "'warm' is no list of numbers as in 0,0.5"),
        ("m a.wav --no-speech-threshold x", "'x' is no number, and not none"),
        ("m a.wav --chunks --previous-text", "these know of no text before them"),
        ("m a.wav --langauge fr", "did you mean --language"),
        ("m a.wav --checkpoint last", "--checkpoint is 'last'"),
    ],
)
def test_faults_of_a_command_line(words, message):
    with pytest.raises(UserError) as error:
        parse(words.split())
    assert message in str(error.value)
