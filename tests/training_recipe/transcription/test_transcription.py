"""Transcribing by a model that says what it is told: seeking, languages, fallback, files."""

import itertools

import numpy as np
import pytest
from recording_cases import sound, write_wav
from speech_fakes import ENGLISH, SEVERAL, FakeModel

from training_recipe.transcription.fallback import Thresholds
from training_recipe.transcription.settings import TranscriptionSettings
from training_recipe.transcription.transcription import transcribe
from training_recipe.transcription.transcripts import Transcript
from transformer_spec import UserError

T = ENGLISH.first_timestamp


def in_turn(*outputs):
    """Says each output once, in order."""
    said = iter(outputs)
    return lambda features, search: next(said)


def always(ids, total=-1.0):
    return lambda features, search: (ids, total)


def run(fake, paths, batch_size=4, **settings) -> list[Transcript]:
    asked = TranscriptionSettings(**settings)
    found = dict(transcribe(paths, fake.model(), asked, batch_size))
    return [found[number] for number in range(len(paths))]


@pytest.fixture
def short(tmp_path):
    return write_wav(tmp_path / "short.wav", sound(4.2))


@pytest.fixture
def long(tmp_path):
    return write_wav(tmp_path / "long.wav", sound(33.5))


def test_a_short_file_without_timestamps(short):
    fake = FakeModel(always((7, 8, 9), -0.8))
    (found,) = run(fake, [short])
    (segment,) = found.segments
    assert (found.text, found.language, found.seconds) == ("hij", "en", 4.2)
    assert (segment.start, segment.end, segment.tokens) == (0.0, 4.2, (7, 8, 9))
    assert segment.avg_logprob == pytest.approx(-0.2)  # the end counts
    (search,) = fake.asked
    assert search.prompt == (ENGLISH.start, ENGLISH.no_timestamps) and search.timestamps is None
    assert (search.suppressed, search.suppressed_first) == ((1, 2), (220, 50256))
    assert (search.rule, search.max_length, search.beam) == ("generate", 224, 1)


def test_a_long_file_goes_on_where_its_last_segment_ends(long):
    outputs = [
        ((T, 7, T + 500, T + 600, 8, T + 1450, T + 1450), -1.0),  # 29.0 s: a pair
        ((T + 5, 9, T + 100), -1.0),  # the rest of 4.5 s
    ]
    seen = []
    said = iter(outputs)

    def says(features, search):
        seen.append(features.any(1).sum())  # frames that are not filled with zeros
        return next(said)

    fake = FakeModel(says)
    (found,) = run(fake, [long])
    times = [(each.start, each.end, each.text) for each in found.segments]
    assert times == [(0.0, 10.0, "h"), (12.0, 29.0, "i"), (29.0, 31.0, "j")]
    assert seen == [3000, 450]
    assert fake.asked[0].prompt == (ENGLISH.start,)
    rules = fake.asked[0].timestamps
    assert (rules.first, rules.without, rules.end, rules.latest_first) == (T, T - 1, 50256, 50)


def test_the_language_is_detected_once_or_given(short, long):
    first = SEVERAL.first_timestamp
    fake = FakeModel(always((first, 7, first + 1500)), SEVERAL, "de")
    one, two = run(fake, [short, long])
    assert (one.language, two.language) == ("de", "de")
    assert one.language_probability == pytest.approx(0.75, abs=1e-6)
    begin = (SEVERAL.start, SEVERAL.language("de"), SEVERAL.transcribe)
    assert [search.prompt for search in fake.asked] == [
        (*begin, SEVERAL.no_timestamps), begin, begin
    ]  # fmt: skip
    (given,) = run(fake, [short], language="fr", task="translate", timestamps=True)
    assert (given.language, given.language_probability) == ("fr", None)
    begin = (SEVERAL.start, SEVERAL.language("fr"), SEVERAL.translate)
    assert fake.asked[-1].prompt == begin


def test_what_is_likely_wrong_is_written_again(short):
    outputs = [((7,) * 99, -0.1), ((7, 8), -9.0), ((7, 9), -1.0)]
    fake = FakeModel(in_turn(*outputs))
    (found,) = run(fake, [short], beam=5)
    assert found.text == "hj" and found.segments[0].temperature == 0.4
    asked = [(each.beam, each.nbest, each.sample, each.temperature) for each in fake.asked]
    assert asked == [(5, 1, False, 1.0), (1, 5, True, 0.2), (1, 5, True, 0.4)]


def test_the_last_temperature_is_taken_whatever_it_says(short):
    fake = FakeModel(always((7, 8), -9.0))
    (found,) = run(fake, [short])
    assert len(fake.asked) == 6 and found.segments[0].temperature == 1.0


def test_only_rows_that_are_likely_wrong_are_written_again(tmp_path):
    quiet, loud = sound(1.0), np.zeros(16000)
    paths = [write_wav(tmp_path / f"{n}.wav", x) for n, x in enumerate((quiet, loud))]
    fake = FakeModel(lambda x, search: ((7, 8), -9.0 if x.std() and not search.sample else -1.0))
    one, two = run(fake, paths)
    assert [each.segments[0].temperature for each in (one, two)] == [0.2, 0.0]
    assert len(fake.asked) == 3 and fake.rows == [2]


def test_silence_is_passed_over(short):
    fake = FakeModel(always((7, 8), -9.0), silence=0.9)
    (found,) = run(fake, [short])
    assert found.segments == () and found.text == "" and len(fake.asked) == 1
    (found,) = run(fake, [short], thresholds=Thresholds(no_speech=None), temperatures=(0.0,))
    assert found.text == "hi" and found.segments[0].no_speech_prob == pytest.approx(0.9, abs=0.02)


def test_what_was_written_before_is_context_on_request(tmp_path):
    path = write_wav(tmp_path / "a.wav", sound(100))
    one, two = np.random.default_rng(0).integers(0, 50000, (2, 200)).tolist()
    outputs = [
        ((T, *one, T + 1500), -1.0),
        ((T, *two[:40], T + 1500), -1.0),
        ((T, 9, T + 1500), -9.0), *[((T, 9, T + 1500), -1.0)] * 2,
    ]  # fmt: skip
    fake = FakeModel(in_turn(*outputs))
    run(fake, [path], previous_text=True, temperatures=(0.0, 0.6))
    written = [T, *one, T + 1500]
    prompts = [search.prompt for search in fake.asked]
    assert prompts[0] == (ENGLISH.start,)
    assert prompts[1] == (ENGLISH.start_of_previous, *written, ENGLISH.start)
    both = (*written, T, *two[:40], T + 1500)[-223:]
    assert prompts[2] == prompts[3] == (ENGLISH.start_of_previous, *both, ENGLISH.start)
    assert prompts[4] == (ENGLISH.start,)  # the one before was written above 0.5
    assert all(len(s.prompt) + s.max_length <= 448 for s in fake.asked)
    fake = FakeModel(in_turn(*outputs))
    run(fake, [path], temperatures=(0.0, 0.6))
    assert {search.prompt for search in fake.asked} == {(ENGLISH.start,)}


def test_a_prompt_stands_before_the_first_window(long):
    output = (T, 7, T + 1000, T + 1000, 8), -1.0
    for settings, second in (({}, []), ({"previous_text": True}, [12, 12, T, 7, T + 1000])):
        fake = FakeModel(in_turn(output, output))
        run(fake, [long], prompt=" mm ", **settings)
        one, two = (search.prompt for search in fake.asked)
        assert one == (ENGLISH.start_of_previous, 12, 12, ENGLISH.start)
        assert two == (*([ENGLISH.start_of_previous, *second] if second else []), ENGLISH.start)


def test_chunks_of_one_file_are_heard_together(tmp_path):
    path = write_wav(tmp_path / "a.wav", sound(100))
    fake = FakeModel(always((T, 7, T + 100, T + 100, 8)), SEVERAL.of(51864))
    (found,) = run(fake, [path], chunks=True, batch_size=3)
    assert fake.rows == [4, 1] and len(fake.asked) == 4
    times = [(each.start, each.end) for each in found.segments]
    assert times == [
        (0, 2), (2, 30), (30, 32), (32, 60), (60, 62), (62, 90), (90, 92), (92, 100)
    ]  # fmt: skip


def test_several_files_and_broken_ones(short, long, tmp_path):
    (tmp_path / "empty.wav").touch()
    nothing = write_wav(tmp_path / "nothing.wav", np.zeros(100))
    paths = [short, tmp_path / "empty.wav", long, tmp_path / "none.wav", nothing, short]
    fake, seconds = FakeModel(always((T, 7, T + 1400))), []
    asked = TranscriptionSettings(timestamps=True)
    found = dict(transcribe(paths, fake.model(), asked, 2, seconds.append))
    assert [type(found[number]).__name__ for number in range(6)] == [
        "Transcript", "UserError", "Transcript", "UserError", "Transcript", "Transcript"
    ]  # fmt: skip
    assert str(found[1]) == f"{paths[1]} is empty" and "none.wav" in str(found[3])
    assert found[4].segments == () and found[0] == found[5]
    assert sum(seconds) == pytest.approx(4.2 + 33.5 + 4.2)
    assert max(fake.rows) == 2


def test_a_batch_gives_what_each_file_gives_alone(short, long):
    def says(features, search):
        return (T, int(np.abs(features).sum()) % 5000, T + 700, T + 700), -1.0

    alone = [run(FakeModel(says), [path], timestamps=True)[0] for path in (short, long)]
    for batch_size, order in itertools.product((1, 2, 5), ((0, 1), (1, 0))):
        paths = [(short, long)[number] for number in order]
        together = run(FakeModel(says), paths, batch_size, timestamps=True)
        assert together == [alone[number] for number in order]


def test_settings_that_mean_nothing():
    with pytest.raises(UserError) as error:
        TranscriptionSettings(
            beam=0, task="translat", temperatures=(), previous_text=True, chunks=True
        ).check()
    assert len(error.value.faults) == 4
    assert "did you mean translate?" in str(error.value)
    TranscriptionSettings().check()
