"""Files of sound: every kind of WAV, what is damaged, and one clear line for what is no sound."""

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from recording_cases import raw, recordings, sound, write_wav

from training_recipe.sound.audio import Audio
from transformer_spec import UserError

needs_soundfile = pytest.mark.skipif(
    find_spec("soundfile") is None, reason="soundfile, of twinformer[speech], is not installed"
)


def read(path: Path) -> np.ndarray:
    return np.concatenate([np.empty(0), *Audio(path).blocks()])


def wav_of(kind: int, bits: int, data: bytes, rate: int = 16000, size: int | None = None) -> bytes:
    """A mono WAV file with a given format number, and what its header says of its length."""
    form = struct.pack("<HHIIHH", kind, 1, rate, rate * bits // 8, bits // 8, bits)
    stated = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", stated) + data
    return b"RIFF" + struct.pack("<I", min(len(body) - len(data) + stated, 2**32 - 1)) + body


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_of_every_width(tmp_path, width):
    heard = sound(0.1)
    found = read(write_wav(tmp_path / "a.wav", heard, width=width))
    assert found.shape == heard.shape
    assert np.abs(found - heard).max() <= 1.6 / 2 ** (8 * width - 1)


def test_numbers_by_hand(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_of(1, 16, struct.pack("<4h", 0, 16384, -32768, 32767)))
    assert read(path).tolist() == [0, 0.5, -1, 32767 / 32768]
    path.write_bytes(wav_of(1, 24, b"\x00\x00\x40\x00\x00\x80\xff\xff\xff"))
    assert read(path).tolist() == [0.5, -1, -(2.0**-23)]
    path.write_bytes(wav_of(1, 8, bytes([0, 128, 192])))
    assert read(path).tolist() == [-1, 0, 0.5]


def test_channels_are_averaged_and_rates_become_one(tmp_path):
    left, right = sound(0.2, 44100, 1), sound(0.2, 44100, 2)
    both = read(write_wav(tmp_path / "2.wav", np.stack([left, right], 1), 44100, 4))
    one = read(write_wav(tmp_path / "1.wav", (left + right) / 2, 44100, 4))
    assert len(both) == 3200 and np.abs(both - one).max() < 1e-8


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path):
    heard, path = sound(1.0), tmp_path / "a.wav"
    path.write_bytes(write_wav(path, heard).read_bytes()[: 44 + 16001])
    audio = Audio(path)
    assert len(np.concatenate(list(audio.blocks()))) == 8000
    (note,) = audio.notes
    assert note == f"{path} is cut off: it has 0.5 of the 1.0 seconds that it speaks of"


def test_a_header_that_contradicts_itself(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    content = bytearray(write_wav(path, sound(0.1)).read_bytes())
    content[4:8] = struct.pack("<I", 40)  # shorter than a part of it
    content[36:40] = b"junk"
    path.write_bytes(content)
    monkeypatch.setattr("training_recipe.options.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match="a WAV file of another kind, needs soundfile"):
        read(path)


def test_many_channels_are_read_in_smaller_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("training_recipe.sound.audio.MOST", 1000)
    wide = np.repeat(sound(0.1)[:, None], 300, 1)
    audio = Audio(write_wav(tmp_path / "a.wav", wide, width=4))
    blocks = list(audio.blocks())
    assert len(blocks[0]) == 3
    assert np.abs(np.concatenate(blocks) - sound(0.1)).max() < 1e-8


def test_a_header_that_was_written_before_its_samples(tmp_path):
    heard, path = sound(0.1), tmp_path / "a.wav"
    path.write_bytes(wav_of(1, 16, raw(heard[:, None], 2), size=2**32 - 1))
    audio = Audio(path)
    assert len(np.concatenate(list(audio.blocks()))) == 1600 and audio.notes == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{} is empty"),
        (b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00more", "{} is an MP4 file, of which no sound"),
        (wav_of(1, 16, b"ab" * 99, rate=1), "{} has 1 samples a second; from 1,000 to 400,000"),
    ],
    ids=["empty", "mp4", "rate"],
)
def test_what_is_no_sound(tmp_path, content, message):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(message.format(path))
    assert "\n" not in str(error.value)


def test_what_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="cannot read .*b.wav: No such file"):
        read(tmp_path / "b.wav")
    with pytest.raises(UserError, match="cannot read .*Is a directory"):
        read(tmp_path)


def test_other_formats_ask_for_the_library(tmp_path, monkeypatch):
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC" + bytes(20))
    monkeypatch.setattr("training_recipe.options.extras.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        read(path)
    expected = (
        f"reading {path}, no WAV file, needs soundfile, which is not installed: "
        "pip install 'twinformer[speech]'"
    )
    assert str(error.value) == expected
    path.write_bytes(wav_of(3, 32, np.zeros(9, "<f4").tobytes()))
    with pytest.raises(UserError, match="a WAV file of another kind, needs soundfile"):
        read(path)


@needs_soundfile
def test_formats_that_need_the_library(tmp_path):
    import soundfile

    heard = sound(0.3, 22050)
    for name, kind, close in (
        ("a.wav", "FLOAT", 1e-7), ("b.flac", "PCM_24", 1e-6), ("c.aiff", "PCM_16", 1e-4),
        ("d.wav", "DOUBLE", 1e-12),
    ):  # fmt: skip
        soundfile.write(tmp_path / name, heard, 22050, subtype=kind)
        plain = read(write_wav(tmp_path / "plain.wav", heard, 22050, 4))
        assert np.abs(read(tmp_path / name) - plain).max() < close + 1e-8, name
    soundfile.write(tmp_path / "e.wav", heard, 22050, subtype="PCM_16", format="WAVEX")
    assert np.abs(read(tmp_path / "e.wav") - plain).max() < 1e-4


@needs_soundfile
def test_damage_that_the_library_finds(tmp_path):
    import soundfile

    (tmp_path / "a.txt").write_text("no sound at all, but words\n" * 9)
    with pytest.raises(UserError, match="a.txt cannot be read as sound: .*; make a WAV file"):
        read(tmp_path / "a.txt")
    values = sound(0.1)
    values[700] = np.nan
    soundfile.write(tmp_path / "a.wav", values, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="a.wav holds samples that are no numbers"):
        read(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.flac", sound(2.0), 16000)
    cut(tmp_path / "a.flac")
    with pytest.raises(UserError, match="a.flac cannot be read as sound: flac decoder lost sync"):
        read(tmp_path / "a.flac")
    soundfile.write(tmp_path / "a.au", sound(2.0), 16000)
    cut(tmp_path / "a.au")
    assert 15000 < len(read(tmp_path / "a.au")) < 17000


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@needs_soundfile
def test_real_recordings():
    lengths = {path.name: len(read(path)) for path in sorted(recordings().glob("*.[fwa]*"))}
    assert lengths == {
        "bonsai.flac": 40000,
        "chinese.flac": 15304,
        "english.wav": 43920,
        "french.aiff": 40525,
        "jfk.flac": 176000,
        "stereo.wav": 80000,
    }
