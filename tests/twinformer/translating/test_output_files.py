"""The file of ``--output`` is whole or as it was, however a translation ends."""

import errno
import os
import signal
import stat

import pytest
from messages import faults_say, says
from translate_cases import python

from training_recipe.files.abandoned import held
from twinformer.translating import texts

OLD = "what was there\n"
TEXTS = "abcab", "ba", "abc"


@pytest.fixture
def place(tmp_path):
    """An output file that is there already."""
    place = tmp_path / "out" / "keep.txt"
    place.parent.mkdir()
    place.write_text(OLD)
    return place


@pytest.fixture
def failing(monkeypatch):
    """A function: the search ends with an exception when it is asked for the batch of a number."""
    from torch_transformer import decoding

    def failing(number, error):
        decode, asked = decoding.decode, []

        def fail_at(*given):
            asked.append(given)
            if len(asked) == number:
                raise error
            return decode(*given)

        monkeypatch.setattr(decoding, "decode", fail_at)

    return failing


class TestWhole:
    def test_the_file_takes_the_place_of_another(self, runs, call, place):
        place.chmod(0o640)
        lines = call(runs["torch"], *TEXTS)[1]
        assert call(runs["torch"], *TEXTS, "--output", place) == (0, [], "")
        assert place.read_text().splitlines() == lines
        assert [*place.parent.iterdir()] == [place]
        assert stat.S_IMODE(place.stat().st_mode) == 0o640

    def test_a_link_stays_one(self, runs, call, place):
        link = place.parent.parent / "link.txt"
        link.symlink_to(place)
        assert call(runs["torch"], *TEXTS, "--output", link)[0] == 0
        assert link.is_symlink() and place.read_text() != OLD

    def test_links_that_lead_nowhere(self, runs, call, tmp_path):
        """A circle, and one into a folder that is not there: nothing is written, nothing opened."""
        for name, target in (("a", "b"), ("b", "a"), ("c", "none/x")):
            (tmp_path / name).symlink_to(target)
        for name, words in (("a", ["circle"]), ("c", ["no folder", tmp_path / "none"])):
            status, _, said = call("nothing", *TEXTS, "--output", tmp_path / name)
            assert status == 2 and (tmp_path / name).is_symlink()
            says(said, "--output", *map(str, words))

    def test_the_input_stays(self, runs, call, place):
        part = place.rename(place.with_name("keep.txt.unfinished"))
        for source, output in ((part, place), (part, part)):
            status, _, said = call(runs["torch"], "--file", source, "--output", output)
            assert status == 2 and part.read_text() == OLD
            says(said, "--output", part, "the input", "overwritten")

    def test_what_is_no_file_is_written_to(self, runs, call, place, tmp_path):
        lines = call(runs["torch"], *TEXTS)[1]
        assert call(runs["torch"], *TEXTS, "--output", "/dev/null") == (0, [], "")
        assert not os.path.exists("/dev/null.unfinished")
        code = (
            "import sys, translate\n"
            f"given = [{str(runs['torch'])!r}, *{TEXTS}, '--output', '/dev/stdout']\n"
            "sys.exit(translate.main(given))\n"
        )
        assert python(code, tmp_path).stdout.splitlines() == lines
        with place.open("a") as stream:
            assert python(code, tmp_path, stdout=stream).returncode == 0
        assert place.read_text().splitlines() == lines
        assert [*place.parent.iterdir()] == [place]


class TestPart:
    """An end before the last text: FILE is as it was, what was done is beside it."""

    @pytest.mark.parametrize(
        ("error", "status"),
        [(KeyboardInterrupt(), 130), (OSError(errno.EIO, os.strerror(errno.EIO)), 2)],
    )
    def test_what_was_done_is_kept_and_told(
        self, runs, call, place, failing, error, status, monkeypatch
    ):
        monkeypatch.setattr(texts, "BATCHES_OF_A_BLOCK", 1)
        lines = call(runs["torch"], *TEXTS)[1]
        failing(3, error)
        ended, printed, said = call(runs["torch"], *TEXTS, "--batch-size", 1, "--output", place)
        assert (ended, printed) == (status, []) and place.read_text() == OLD
        part = place.with_name("keep.txt.unfinished")
        says(said, "2 of 3 texts", part, place, "as it was")
        assert part.read_text().splitlines() == lines[:2]

    def test_nothing_done_leaves_nothing(self, runs, call, place, failing):
        failing(1, KeyboardInterrupt())
        assert call(runs["torch"], *TEXTS, "--output", place)[0] == 130
        assert [*place.parent.iterdir()] == [place] and place.read_text() == OLD

    @pytest.mark.parametrize("ended", [True, False])
    def test_what_an_earlier_run_kept_stays(self, runs, call, place, failing, ended):
        """The same command again, whether it is ended before its first text or done."""
        part = place.with_name("keep.txt.unfinished")
        for earlier in ("first\n", "second\n"):
            part.write_text(earlier)
            if ended:
                failing(1, KeyboardInterrupt())
            status, _, said = call(runs["torch"], *TEXTS, "--output", place)
            assert status == (130 if ended else 0)
        says(said, part, "interrupted", f"{part}-2")
        kept = [place.with_name(f"{part.name}-{number}") for number in (1, 2)]
        assert [file.read_text() for file in kept] == ["first\n", "second\n"]
        assert {*place.parent.iterdir()} == {place, *kept}
        assert (place.read_text() == OLD) == ended

    @pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
    @pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
    def test_signal(self, runs, call, tmp_path, name):
        lines = call(runs["torch"], *TEXTS)[1]
        code = (
            "import os, signal, sys, translate\n"
            "from torch_transformer import decoding\n"
            "from twinformer.translating import texts\n"
            "texts.BATCHES_OF_A_BLOCK = 1\n"
            "decode, asked = decoding.decode, []\n"
            "def ended(*given):\n"
            "    asked.append(given)\n"
            f"    if len(asked) == 3: os.kill(os.getpid(), signal.{name})\n"
            "    return decode(*given)\n"
            "decoding.decode = ended\n"
            "sys.argv = ['translate.py']\n"
            f"translate.main([{str(runs['torch'])!r}, *{TEXTS}, '--batch-size', '1', "
            "'--output', 'new.txt'])\n"
        )
        finished = python(code, tmp_path)
        assert finished.returncode == 128 + getattr(signal, name)
        part = tmp_path / "new.txt.unfinished"
        faults_say(
            finished.stderr.splitlines(), ("2 of 3 texts", part, "new.txt"), ("stopped before",)
        )
        assert part.read_text().splitlines() == lines[:2] and [*tmp_path.iterdir()] == [part]

    def test_a_file_that_another_process_writes(self, runs, call, place):
        part = place.with_name("keep.txt.unfinished")
        part.write_text("theirs\n")
        with held(part):
            status, _, said = call(runs["torch"], *TEXTS, "--output", place)
        assert status == 2 and part.read_text() == "theirs\n" and place.read_text() == OLD
        says(said, "error:", "another process", part)
