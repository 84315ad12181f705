"""Prepared runs whose token ids the processes of a host hold once."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from messages import saying, says

pytest.importorskip("fcntl", reason="locks of files, which Windows has not")

from training_recipe import preparation
from training_recipe.batching.encoded import encode
from training_recipe.corpora.corpus import Corpus, Example
from training_recipe.options.flags import parse
from training_recipe.options.request import Request
from training_recipe.preparation import Prepared, prepare_again, prepare_from, prepare_new
from training_recipe.runs.folder import RunFolder
from training_recipe.text.vocabulary import build_vocabulary
from transformer_spec import UserError

PAIRS = 200_000
MOST_OF_ITS_OWN = 10 << 20  # bytes: 50 MB a million pairs
PROGRAM = """
import sys
from pathlib import Path
from training_recipe.options.flags import parse
from training_recipe.preparation import prepare_again, prepare_new
from training_recipe.runs.folder import RunFolder

def of_its_own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

run, role, name, *flags = sys.argv[1:]
request, run = parse(flags), RunFolder(Path(run))
before = of_its_own()
if role == "first":
    prepared = prepare_new(request.settings, request.model, name)
    prepared.save(run)
else:
    prepared = prepare_again(request.settings, run, name or None)
assert prepared.plan.batch(1).tokens > 0
print(of_its_own() - before, prepared.fingerprint, prepared.plan.fingerprint, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch) -> None:
    """The folder of temporary files, in this process and in those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)


def write_texts(folder: Path, sizes: dict[str, int]) -> list[str]:
    """Parallel files, and the flags that name them."""
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(300)]
    for name, size in sizes.items():
        for language in ("en", "de"):
            lines = (" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(size))
            (folder / f"{name}.{language}").write_text("\n".join(lines) + "\n")
    places = [part for name in sizes for part in (f"--{name}", str(folder / name))]
    places[0] = "--data"
    kinds = ["--source-vocabulary", "whitespace", "--target-vocabulary", "whitespace"]
    return [*places, "--source-lang", "en", "--target-lang", "de", *kinds, "--max-length", "12"]


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return write_texts(tmp_path, {"train": 500, "valid": 50, "test": 20})


def asked(flags: list[str], *more: str) -> Request:
    return parse([*flags, "--batch-tokens", "200", *more])


def begun(request: Request, folder: Path, shared: str | None = None) -> tuple[Prepared, RunFolder]:
    """What a first process has, and the run folder that the others look into."""
    prepared, run = prepare_new(request.settings, request.model, shared), RunFolder(folder / "run")
    run.path.mkdir(exist_ok=True)
    prepared.save(run)
    return prepared, run


def assert_same(one: Prepared, other: Prepared) -> None:
    for name in ("fingerprint", "judged_fingerprint", "notes", "longest_target", "corpus"):
        assert getattr(one, name) == getattr(other, name)
    for mine, yours in ((one.plan, other.plan), (one.valid_plan, other.valid_plan)):
        assert mine.fingerprint == yours.fingerprint
        for number in range(1, 2 * mine.batches_per_epoch + 1):
            batches = mine.batch(number), yours.batch(number)
            for arrays in zip(*(batch.arrays for batch in batches), strict=True):
                assert np.array_equal(*arrays)


MERGES = [
    "--source-vocabulary", "sentencepiece", "--target-vocabulary", "sentencepiece",
    "--sentencepiece-algorithm", "bpe", "--source-vocab-size", "60", "--target-vocab-size", "60",
    "--max-length", "30", "--bpe-dropout", "0.2",
]  # fmt: skip


@pytest.mark.parametrize("more", [[], MERGES])
def test_the_others_read_no_data(tmp_path: Path, flags, more, monkeypatch) -> None:
    request = asked(flags, *more)
    alone, run = begun(request, tmp_path)
    first = begun(request, tmp_path, "name")[0]
    monkeypatch.setattr(preparation, "load_corpus", pytest.fail)
    second = prepare_again(request.settings, run, "name")
    both, config = (first.source_vocabulary, first.target_vocabulary), first.config
    third = prepare_from(request.settings, both, config, None, "name")
    for other in (first, second, third):
        assert_same(alone, other)
    assert first.corpus.train == [] and len(first.corpus.valid) == 50


def test_another_name_or_other_settings_share_nothing(tmp_path: Path, flags, monkeypatch) -> None:
    request = asked(flags)
    first, run = begun(request, tmp_path, "name")
    (tmp_path / "other.en").write_text("ab\n")
    (tmp_path / "other.de").write_text("ab\n")
    other = replace(request.settings, data=str(tmp_path / "other"))
    assert prepare_again(other, run, "name").fingerprint != first.fingerprint
    monkeypatch.setattr(preparation, "load_corpus", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_again(request.settings, run, "another")
    prepare_again(request.settings, run, "name")


def test_data_that_has_moved_is_said_as_ever(tmp_path: Path, flags) -> None:
    request = asked(flags)
    _, run = begun(request, tmp_path)
    gone = replace(request.settings, data=str(tmp_path / "gone"))
    for shared in (None, "name"):
        with pytest.raises(UserError, check=saying("gone.de", "--resume", "--data")):
            prepare_again(gone, run, shared)


def test_a_note_where_nothing_can_be_shared(tmp_path: Path, flags, monkeypatch) -> None:
    request = asked(flags)
    alone = begun(request, tmp_path)[0]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    prepared = begun(request, tmp_path, "name")[0]
    (note,) = [note for note in prepared.notes if note not in alone.notes]
    assert note.startswith("note: the token ids cannot lie in a file of") and "TMPDIR" in note
    assert prepared.fingerprint == alone.fingerprint


def test_texts_are_kept_for_cutting_anew_alone(tmp_path: Path, flags) -> None:
    request = asked(flags)
    prepared = begun(request, tmp_path)[0]
    both = prepared.source_vocabulary, prepared.target_vocabulary
    corpus = preparation._read(request.settings)
    assert encode(corpus, both, 12, with_texts=False).texts is None
    encoded = encode(corpus, both, 12, with_texts=True)
    assert encoded.texts is not None
    texts = zip(encoded.texts.side(0), encoded.texts.side(1), strict=True)
    ids = [tuple(v.encode(t) for v, t in zip(both, pair, strict=True)) for pair in texts]
    assert ids == [*encoded.train] and encoded.examples == 500 > len(ids) > 400


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_second_process_needs_hardly_any_memory(tmp_path: Path) -> None:
    flags = write_texts(tmp_path, {"train": PAIRS, "valid": 100, "test": 100})
    (tmp_path / "run").mkdir()
    processes, told = [], []
    for role, name in (("first", "name"), ("second", "name"), ("second", "")):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), role, name, *flags]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        told.append(processes[-1].stdout.readline().split())
    for process in processes:
        process.communicate(timeout=30)
    (_, *first), (second, *same), (alone, *third) = told
    assert first == same == third
    assert int(second) < MOST_OF_ITS_OWN < int(alone)


@pytest.mark.parametrize(("letters", "told"), [("abc", None), ("abx", "33.3%"), ("xyz", "100.0%")])
def test_a_vocabulary_of_another_model_that_lacks_much(letters, told) -> None:
    """Fine-tuning on texts that a model cannot write begins with a note."""
    source, target = (build_vocabulary("characters", ["abc"], None, side) for side in "st")
    examples = [Example("abc", (letters,))] * 3
    corpus = Corpus("mine", "translation", examples, examples, examples, notes=[])
    encoded = encode(corpus, (source, target), 9, False)
    assert [n.split(" ")[:2] for n in encoded.notes] == ([["target:", told]] if told else [])
    assert encoded.unknown == (0.0, sum(letter not in "abc" for letter in letters) / 3)


def test_the_space_before_an_unknown_word_is_no_known_token() -> None:
    """Texts in letters of which sentencepiece has none are unknown as a whole."""
    source = build_vocabulary("sentencepiece", ["ab ba aab", "bab abba"] * 9, None, "source")
    target = build_vocabulary("characters", ["ab ba"], None, "target")
    examples = [Example("\uac00\ub098 \ub2e4", ("ab",)), Example("\ub77c", ("ab \ub098",))]
    corpus = Corpus("mine", "translation", examples, examples, examples)
    encoded = encode(corpus, (source, target), 9, False)
    assert encoded.unknown == (1.0, 1 / 6)
    says(encoded.notes, "source:", "100.0%", "unknown")
