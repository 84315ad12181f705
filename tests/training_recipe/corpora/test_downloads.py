"""Downloads from a server on loopback: whole, cut off, changed, absent, interrupted, twice."""

import gc
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pooch.core
import pytest
from messages import saying, says

import train
from training_recipe.corpora import corpus as corpora
from training_recipe.corpora import downloads
from training_recipe.corpora.corpus import Example, load_corpus
from training_recipe.corpora.downloads import corpus_folder, fetch, url_of
from training_recipe.corpora.named import NamedCorpus, PublishedFile
from transformer_spec.errors import UserError

# What a server answers instead of a file is left unread.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

CONTENTS = {
    "train.en": b"one\ntwo\nthree\n" * 10_000,
    "train.de": b"eins\nzwei\ndrei\n" * 10_000,
    "dev.en": b"four\n",
    "dev.de": b"vier\n",
}
HASHES = {file: hashlib.sha256(content).hexdigest() for file, content in CONTENTS.items()}
CORPUS = NamedCorpus(
    "numbers",
    "numbers in words",
    {file: PublishedFile(f"http://127.0.0.1:9/{file}", HASHES[file]) for file in CONTENTS},
    train="train",
    valid="dev",
    test="dev",
    languages=("en", "de"),
)
# What a process does that is started to be interrupted, killed or run beside another.
# A shell's background jobs ignore Ctrl-C, and what they start inherits that.
CHILD = f"""
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(Path(train.__file__).parent)!r})
from training_recipe.corpora.downloads import fetch
from training_recipe.corpora.named import NamedCorpus, PublishedFile
from transformer_spec.door import exit_status
files = {{file: PublishedFile("", digest) for file, digest in {HASHES!r}.items()}}
corpus = NamedCorpus("numbers", "", files, train="train")
sys.exit(exit_status(lambda: print(fetch(corpus)) and None, "interrupted"))
"""


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENTS below /numbers/; ``faults`` by file name say what goes wrong how often."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.faults = [], {}
        self.together = threading.Barrier(2)
        self.halfway, self.go_on = threading.Event(), threading.Event()

    def fault(self, file):
        kind, times = self.faults.get(file, ("", 0))
        self.faults[file] = (kind, times - 1)
        return kind if times > 0 else ""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        file = self.path.removeprefix("/numbers/")
        self.server.asked.append(file)
        fault = self.server.fault(file)
        content = CONTENTS[file]
        if fault == "absent":
            return self.send_error(404)
        if fault == "changed":
            content = content.upper()
        if fault == "together":
            self.server.together.wait(10)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        if fault == "halfway":
            self.server.halfway.set()
            self.server.go_on.wait(10)
        if fault != "cut":
            self.wfile.write(content[len(content) // 2 :])

    def log_message(self, *arguments):
        """Silent."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("TWINFORMER_MIRROR", f"http://127.0.0.1:{made.server_port}")
        monkeypatch.setenv("TWINFORMER_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
        yield made
        gc.collect()
        made.go_on.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def no_server(monkeypatch, tmp_path):
    """An address where nothing listens: the discard port of loopback."""
    monkeypatch.setenv("TWINFORMER_MIRROR", "http://127.0.0.1:9/")
    monkeypatch.setenv("TWINFORMER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "RETRIES", 0)
    return tmp_path / "data" / "numbers"


def held(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def no_backend(*arguments):
    raise AssertionError("the data come first")


def fault_of(corpus=CORPUS):
    with pytest.raises(UserError) as error:
        fetch(corpus)
    return str(error.value)


class TestWhole:
    def test_every_file_comes_once_and_stays(self, server, tmp_path, capsys):
        folder = fetch(CORPUS)
        assert folder == tmp_path / "data" / "numbers"
        assert held(folder) == CONTENTS
        assert server.asked == list(CONTENTS)
        assert "numbers: numbers in words" in capsys.readouterr().err
        assert fetch(CORPUS) == folder
        assert server.asked == list(CONTENTS)
        assert capsys.readouterr().err == ""

    def test_a_bar_on_a_terminal(self, server, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        fetch(CORPUS)
        shown = capsys.readouterr().err
        assert shown.count("100%") >= len(CONTENTS)

    def test_a_damaged_file_is_replaced(self, server):
        folder = fetch(CORPUS)
        (folder / "dev.en").write_bytes(b"fou")
        fetch(CORPUS)
        assert held(folder) == CONTENTS
        assert server.asked == [*CONTENTS, "dev.en"]

    def test_two_processes_at_once(self, server, tmp_path):
        server.faults = {file: ("together", 2) for file in CONTENTS}
        children = [start_child() for _ in range(2)]
        for child in children:
            output, errors = child.communicate(timeout=60)
            assert (child.returncode, output.strip()) == (0, str(tmp_path / "data" / "numbers"))
        assert held(tmp_path / "data" / "numbers") == CONTENTS
        assert sorted(server.asked) == sorted([*CONTENTS] * 2)


class TestFaults:
    def test_a_cut_connection_is_tried_again(self, server):
        server.faults = {"train.de": ("cut", 1)}
        assert held(fetch(CORPUS)) == CONTENTS
        assert server.asked == ["train.en", "train.de", "train.de", "dev.en", "dev.de"]

    def test_what_is_cut_off_every_time_leaves_nothing_but_what_arrived(self, server, tmp_path):
        server.faults = {"train.de": ("cut", 2)}
        message = fault_of()
        url = os.environ["TWINFORMER_MIRROR"] + "/numbers/"
        assert f"cannot download {url}train.de: " in message and "IncompleteRead" in message
        assert f"into {tmp_path / 'data' / 'numbers'} by hand" in message
        *_, one, two, three = message.splitlines()
        for line, name in ((one, "train.de"), (two, "dev.en"), (three, "dev.de")):
            assert line.strip() == f"{url}{name} as {name}"
        assert held(tmp_path / "data" / "numbers") == {"train.en": CONTENTS["train.en"]}
        assert held(fetch(CORPUS)) == CONTENTS
        assert server.asked.count("train.en") == 1

    def test_changed_bytes_name_both_hashes_and_are_not_kept(self, server, tmp_path):
        server.faults = {"train.en": ("changed", 2)}
        message = fault_of()
        found = hashlib.sha256(CONTENTS["train.en"].upper()).hexdigest()
        assert found in message and HASHES["train.en"] in message
        assert "/numbers/train.en" in message and "by hand" in message
        assert held(tmp_path / "data" / "numbers") == {}

    def test_an_absent_file(self, server, tmp_path):
        server.faults = {"dev.de": ("absent", 2)}
        message = fault_of()
        assert "/numbers/dev.de: 404" in message and message.count(" as ") == 1
        assert set(held(tmp_path / "data" / "numbers")) == {"train.en", "train.de", "dev.en"}

    def test_no_server_and_then_by_hand(self, no_server):
        message = fault_of()
        assert "http://127.0.0.1:9/numbers/train.en: " in message and "refused" in message
        for file, content in CONTENTS.items():
            (no_server / file).write_bytes(content)
        assert fetch(CORPUS) == no_server

    def test_by_hand_under_another_name_than_the_address_has(self, no_server, monkeypatch):
        monkeypatch.delenv("TWINFORMER_MIRROR")
        url = "http://127.0.0.1:9/All%20pairs%20.csv"
        published = PublishedFile(url, hashlib.sha256(b"1,eins\n").hexdigest())
        corpus = NamedCorpus("numbers", "", {"pairs.csv": published}, train="pairs.csv")
        message = fault_of(corpus)
        place, _, name = message.splitlines()[-1].strip().partition(" as ")
        assert place == url and message.splitlines()[-2].endswith(f"into {no_server} by hand:")
        (no_server / name).write_bytes(b"1,eins\n")
        assert fetch(corpus) == no_server

    def test_a_folder_that_cannot_be(self, server, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TWINFORMER_DATA", str(tmp_path / "file"))
        says(fault_of(), "cannot keep numbers", tmp_path / "file")
        assert "set TWINFORMER_DATA" in fault_of()

    def test_the_command_says_it_and_ends_with_2(self, no_server, capsys):
        assert train.main(["--data", "multi30k-en-de"], no_backend) == 2
        errors = capsys.readouterr().err
        assert "error: cannot download http://127.0.0.1:9/multi30k-en-de/train.lc.norm" in errors
        assert "Traceback" not in errors


def start_child():
    return subprocess.Popen(
        [sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stop_halfway(server, number):
    """A process that is stopped while half of train.de has arrived; its exit status and errors."""
    server.faults = {"train.de": ("halfway", 1)}
    child = start_child()
    assert server.halfway.wait(30)
    child.send_signal(number)
    errors = child.communicate(timeout=30)[1]
    return child.returncode, errors


class TestInterrupted:
    def test_ctrl_c(self, server, tmp_path):
        status, errors = stop_halfway(server, signal.SIGINT)
        assert (status, errors.splitlines()[-1]) == (130, "interrupted")
        assert "Traceback" not in errors
        assert held(tmp_path / "data" / "numbers") == {"train.en": CONTENTS["train.en"]}
        assert held(fetch(CORPUS)) == CONTENTS

    def test_killed(self, server, tmp_path):
        assert stop_halfway(server, signal.SIGKILL)[0] == -signal.SIGKILL
        folder = tmp_path / "data" / "numbers"
        left = [path for path in folder.iterdir() if path.name not in CONTENTS]
        assert len(left) == 1
        assert held(fetch(CORPUS)) == CONTENTS | {left[0].name: left[0].read_bytes()}


class TestNames:
    def test_a_corpus_by_name(self, server, monkeypatch, tmp_path):
        monkeypatch.setattr(corpora, "NAMED_CORPORA", {"numbers": CORPUS})
        corpus = load_corpus("numbers")
        assert (corpus.name, corpus.task) == ("numbers", "translation")
        says(corpus.notes, "note:", "1 of 1 pairs", "validation data")  # one file is both
        assert corpus.train[:2] == [Example("one", ("eins",)), Example("two", ("zwei",))]
        assert corpus.valid == corpus.test == [Example("four", ("vier",))]
        for language, text in (("en", "five\n"), ("de", "fünf\n")):
            (tmp_path / f"own.{language}").write_text(text, encoding="utf-8")
        corpus = load_corpus("numbers", test=str(tmp_path / "own"))
        assert (corpus.valid[0].source, corpus.test[0].source) == ("four", "five")

    def test_the_other_way_round(self, server, monkeypatch, tmp_path):
        monkeypatch.setattr(corpora, "NAMED_CORPORA", {"numbers": CORPUS})
        corpus = load_corpus("numbers", source_lang="de", target_lang="en")
        assert corpus.train[0] == Example("eins", ("one",))
        assert corpus.valid == corpus.test == [Example("vier", ("four",))]
        for language, text in (("en", "five\nfour\n"), ("de", "fünf\nvier\n")):
            (tmp_path / f"own.{language}").write_text(text, encoding="utf-8")
        extra = [str(tmp_path / "own")]
        corpus = load_corpus("numbers", source_lang="de", target_lang="en", extra=extra)
        assert corpus.train[-2:] == [Example("drei", ("three",)), Example("fünf", ("five",))]
        assert load_corpus("numbers", source_lang="en", target_lang="de") == load_corpus("numbers")

    def test_it_has_no_other_sides(self, no_server):
        for sides in ({"source_lang": "ko"}, {"columns": ("Q", "B")}):
            with pytest.raises(UserError, match=r"korean-chatbot has.* --columns A,Q.*\./korean-c"):
                load_corpus("korean-chatbot", **sides)
        for sides in ({"source_lang": "de"}, {"columns": ("en", "de")}):
            swapped = "--source-lang de --target-lang en"
            with pytest.raises(UserError, check=saying("multi30k-en-de", "own sides", swapped)):
                load_corpus("multi30k-en-de", **sides)
        with pytest.raises(UserError, match="--extra-data: the data set cmudict"):
            load_corpus("cmudict", extra=["more"])

    def test_where_files_come_from_and_lie(self, monkeypatch, tmp_path):
        for variable in ("TWINFORMER_DATA", "TWINFORMER_MIRROR"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
        assert corpus_folder("numbers") == tmp_path / "twinformer" / "data" / "numbers"
        assert url_of(CORPUS, "dev.de") == "http://127.0.0.1:9/dev.de"
        monkeypatch.setenv("TWINFORMER_DATA", "~/corpora")
        assert corpus_folder("numbers") == Path.home() / "corpora" / "numbers"
