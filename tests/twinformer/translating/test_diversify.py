"""diversify.py: more training pairs out of what models of both directions say."""

from pathlib import Path

import pytest
from messages import faults_say, saying, says

import diversify
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import Alone, World
from training_recipe.options.settings import TrainingSettings
from training_recipe.runs.record import RunRecord
from transformer_spec import UserError
from twinformer.requests import DiversificationRequest
from twinformer.translating import diversification
from twinformer.translating.diversification import (
    Kept,
    directions,
    new_pairs,
    pairs_of_all,
    say_all,
    training_pairs,
    write_pairs,
)

REAL = [("a b", "A B"), ("c", "C"), ("c", "D"), ("e e", "E")]
MODEL = {
    "hidden_dim": 8, "inner_dim": 8, "num_heads": 2, "max_length": 16,
    "num_encoder_layers": 1, "num_decoder_layers": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The prefix of parallel files: words in, the same words reversed and in capitals out."""
    folder = tmp_path_factory.mktemp("corpus")
    words = [f"{a}{b} {b}{c}" for a in "abcd" for b in "bcde" for c in "cdef"]
    (folder / "text.in").write_text("\n".join(words) + "\n", encoding="utf-8")
    out = "\n".join(word[::-1].upper() for word in words)
    (folder / "text.out").write_text(out + "\n", encoding="utf-8")
    return folder / "text"


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory, both_frameworks):
    """A run forwards by PyTorch and one backwards by JAX, both on the same pairs."""
    import train

    folder = tmp_path_factory.mktemp("runs")
    for name, sides, backend in (("there", "in out", "torch"), ("back", "out in", "jax")):
        source, target = sides.split()
        flags = ["--data", corpus, "--source-lang", source, "--target-lang", target]
        flags += ["--valid", corpus, "--test", corpus, "--test-examples", 1, "--steps", 2]
        flags += ["--source-vocabulary", "characters", "--target-vocabulary", "characters"]
        flags += ["--valid-examples", 1, "--out", folder / name, "--backend", backend]
        for field, value in MODEL.items():
            flags += [f"--{field.replace('_', '-')}", value]
        assert train.main([str(flag) for flag in flags]) == 0
    return folder


def said_by(capsys, *arguments):
    status = diversify.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_pairs_of_the_outputs_of_both_directions(corpus, runs, tmp_path, capsys):
    flags = ["--out", tmp_path / "more", "--beam", 2]
    status, out, err = said_by(capsys, runs / "there", runs / "back", *flags)
    assert status == 0, err
    sources, targets = (
        (tmp_path / f"more.{side}").read_text().split("\n") for side in ("in", "out")
    )
    assert len(sources) == len(targets)
    real = [corpus.with_name(f"text.{side}").read_text().split("\n")[:-1] for side in ("in", "out")]
    forwards = [pair for pair in zip(sources, targets, strict=True) if pair[0] in real[0]]
    backwards = [pair for pair in zip(sources, targets, strict=True) if pair[1] in real[1]]
    assert forwards and backwards
    assert f"{len(sources) - 1:,} pairs beside {len(real[0]):,}" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more.in", "more.out"]
    for text, output in forwards[:-1][:3]:
        assert translation(runs / "there", text, capsys) == output
    for output, text in backwards[:-1][:3]:
        assert translation(runs / "back", text, capsys) == output


def translation(run, text, capsys):
    import translate

    assert translate.main([str(run), text, "--beam", "2", "--max-length", "16"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_training_takes_the_pairs_and_not_those_of_held_out_sentences(
    corpus, runs, tmp_path, capsys
):
    import train

    extra = tmp_path / "extra"
    held_out = corpus.with_name("text.in").read_text().split("\n")[0]
    extra.with_name("extra.in").write_text(f"new words\n{held_out}\nmore words\n")
    extra.with_name("extra.out").write_text("NEW\nheld out\nMORE\n")
    flags = ["--data", corpus, "--source-lang", "in", "--target-lang", "out", "--valid", corpus]
    flags += ["--test", corpus, "--extra-data", f"{extra},{extra}", "--steps", 1, "--out"]
    flags += [tmp_path / "run", "--backend", "torch", "--valid-examples", 1, "--test-examples", 1]
    flags += ["--source-vocabulary", "characters", "--target-vocabulary", "characters"]
    assert train.main([str(flag) for flag in flags]) == 0
    said = capsys.readouterr().out
    for number in (1, 2):
        says(said, f"extra data {number}", "2 more pairs", "1 left out")
    says(said, "text", "68 train", "64 valid", "64 test")
    settings = TrainingSettings(data=str(corpus), source_lang="in", target_lang="out",
                                extra_data=(str(extra),))  # fmt: skip
    assert ("new words", "NEW") not in training_pairs(settings)


def test_goes_on_where_it_was_stopped(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diversification, "BLOCK", 10)
    flags = [runs / "there", "--out", tmp_path / "more", "--beam", 1]
    assert said_by(capsys, *flags)[0] == 0
    whole = (tmp_path / "more.out").read_bytes()
    status, _, err = said_by(capsys, *flags)
    assert status == 2
    says(err, "more.out", "would be overwritten")
    for path in tmp_path.glob("more.*"):
        path.unlink()
    calls = []
    real = Kept.add

    def add(self, outputs):
        calls.append(len(outputs))
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self, outputs)

    monkeypatch.setattr(Kept, "add", add)
    status, _, err = said_by(capsys, *flags)
    assert status == 130 and "the same command goes on" in err
    assert not (tmp_path / "more.out").exists()
    with (tmp_path / ".more.outputs-1").open("ab") as stream:
        stream.write(b"half a li")
    assert said_by(capsys, *flags)[0] == 0
    assert (tmp_path / "more.out").read_bytes() == whole
    assert len(calls) == 3 + 5 and sum(calls) == 64 + 10


def test_outputs_of_other_weights_are_not_gone_on_with(tmp_path):
    path = tmp_path / "kept"
    Kept(path, "one").add(["A", "B"])
    assert Kept(path, "one").outputs == ["A", "B"]
    assert Kept(path, "two").outputs == []
    assert Kept(path, "one").outputs == []


def test_say_all_counts_what_was_there(tmp_path):
    kept = Kept(tmp_path / "kept", "key")
    kept.add(["x"])
    asked = []

    def say(block):
        asked.extend(block)
        return [f"{text}\n {text}" for text in block]

    assert list(say_all(["a", "b", "c"], kept, say)) == [1, 2]
    assert asked == ["b", "c"]
    assert Kept(tmp_path / "kept", "key").outputs == ["x", "b b", "c c"]


def test_new_pairs_are_new_and_go_forwards():
    forwards = {"a b": "A B", "c": "X", "e e": ""}
    backwards = {"A B": "a", "E": "e e", "D": "c"}
    pairs, notes = new_pairs(REAL, [(False, forwards), (True, backwards), (False, {"c": "X"})])
    assert pairs == [("c", "X"), ("a", "A B")]
    assert [note.split()[0] for note in notes] == ["1", "1", "0"]


def test_directions(tmp_path):
    turned = [(target, source) for source, target in REAL]
    runs = [tmp_path / name for name in "abcd"]
    assert directions(runs[:3], [REAL, turned[::-1], REAL]) == [False, True, False]
    with pytest.raises(UserError) as caught:
        directions(runs, [REAL, REAL[:2], turned, turned[1:]])
    for number, said in enumerate((False, True, False, True)):
        assert (f"{runs[number]} was trained on other pairs" in str(caught.value)) is said


def test_tables_are_written_as_they_are_read(tmp_path):
    pairs = [('say "a"', "b"), ("c", 'd "e"')]
    for columns in (("Q", "A"), ("3", "1")):
        settings = TrainingSettings(data="x.csv", columns=columns)
        assert write_pairs(tmp_path / "more", pairs, settings) == [tmp_path / "more.tsv"]
        rest = {"valid": str(tmp_path / "more.tsv"), "test": str(tmp_path / "more.tsv")}
        read = TrainingSettings(data=str(tmp_path / "more.tsv"), columns=columns, **rest)
        assert training_pairs(read) == pairs
        broken = [("a\tb", "c"), ("d\re", "f\ng")]  # as a quoted field of a .csv may hold them
        write_pairs(tmp_path / "more", broken, settings)
        assert training_pairs(read) == [("a\tb", "c"), ("d e", "f g")]


def test_every_mistake_is_one_message(corpus, runs, tmp_path, capsys):
    out = ["--out", tmp_path / "no" / "more", "--beam", 0]
    status, _, err = said_by(capsys, tmp_path, tmp_path / "gone", *out)
    assert status == 2 and "Traceback" not in err
    for name in (
        f"{tmp_path} is no run folder: it has no settings.json",
        f"{tmp_path / 'gone'} is no run folder: there is no such folder",
        "--out",
        "beam is 0",
    ):
        assert name in err
    assert "nbest" not in err and not list(tmp_path.iterdir())
    status, _, err = said_by(capsys, runs / "there", "--out", tmp_path / "more", "--beem", 2)
    assert status == 2 and "did you mean --beam" in err


def test_several_devices(runs, tmp_path, capsys, monkeypatch):
    both = runs / "there", runs / "back", "--out", tmp_path / "more"
    for mesh, parts in (
        ("fsdp=2", ("splits the weights", "give data=N")),
        ("data=5", ("is of 5 devices, and there is 1",)),
        ("2", ("is no mesh",)),
    ):
        status, _, err = said_by(capsys, *both, "--backend", "jax", "--mesh", mesh)
        assert status == 2
        says(err, *parts)
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = said_by(capsys, *both)
    assert status == 2
    says(err, "torchrun started 2 processes", "--mesh data=N")


def test_as_many_rows_for_every_device(runs, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(diversification, "within", lambda tokens, beam: seen.append(tokens) or len)

    class Spread(diversification.Translator):
        def __init__(self, *given, **named) -> None:
            super().__init__(*given, **named | {"mesh": None}, world=World(Alone(), Mesh(3)))

    monkeypatch.setattr(diversification, "Translator", Spread)
    monkeypatch.setattr(diversification, "say_all", lambda texts, kept, say: iter(()))
    run, settings = runs / "there", RunRecord.load(runs / "there" / "settings.json")
    request = DiversificationRequest((run,), tmp_path / "more", mesh="data=3")
    translated = diversification.translated
    assert translated(run, settings, [], tmp_path / "kept", request, False) == {}
    assert seen == [3 * settings.settings.batch_tokens]


def test_runs_with_other_pairs_are_told_how_to_have_the_same():
    with pytest.raises(UserError, check=saying("same data", "--valid", "--test")) as caught:
        directions([Path("a"), Path("b")], [REAL, REAL[1:]])
    says(caught.value, "b", "other pairs than a")


def test_a_dictionary_is_no_parallel_text():
    with pytest.raises(UserError, match="no parallel text"):
        training_pairs(TrainingSettings())


def test_every_run_without_pairs_is_named(tmp_path):
    """One is of the dictionary, the data of another are gone."""
    gone = TrainingSettings(data=str(tmp_path / "gone"), source_lang="in", target_lang="out")
    records = [RunRecord(settings, "torch", "") for settings in (TrainingSettings(), gone)]
    with pytest.raises(UserError) as error:
        pairs_of_all([Path("runs/a"), Path("runs/b")], records)
    told = [
        ("runs/a", "cmudict", "no parallel text"),
        ("runs/b", "gone.in"),
        ("runs/b", "gone.out"),
    ]
    faults_say(error.value.faults, *told)
