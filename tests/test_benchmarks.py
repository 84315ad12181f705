"""What the benchmarks count, draw and compare by; none of them is timed here."""

import dataclasses
import json
import sys
import warnings

import numpy as np
import pytest

from benchmarks import (
    scale,
    scale_contenders,
    scale_counts,
    scale_sizes,
    train,
    training_contenders,
    training_sizes,
    translate,
)
from benchmarks.pictures import draw_training, draw_translation
from benchmarks.training_contenders import CONTENDERS, MODULES
from benchmarks.training_sizes import SIZES, Size, arithmetic, full_batch, multi30k_pairs
from benchmarks.translate import equal_share
from benchmarks.translation_contenders import in_batches
from benchmarks.translation_model import base_config, random_weights, sentences
from benchmarks.turns import Contender, contenders, installed, ratios, take_turns
from training_recipe.batching.batches import BatchPlan
from training_recipe.distributed.mesh import Mesh
from transformer_spec import weight_shapes

COMPILED_AGAIN = "twinformer, JAX, bfloat16"
COUNTING = """
def make(name, task):
    return name + " 1.0", lambda number: {"number": number, "done": {"words": task["words"]}}
"""


def test_products_of_every_shape_by_both(capsys):
    products = pytest.importorskip("benchmarks.products")
    assert products.main(["--seconds", "0.0001"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == len(products.SHAPES)
    assert all(float(part.strip(",")) > 0 for row in rows for part in row)


def test_contenders_take_turns(tmp_path, monkeypatch):
    """Each is a process of its own, which is asked again and again and tells what it did."""
    (tmp_path / "counting.py").write_text(COUNTING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("benchmarks.turns.PAUSE", 0)
    with contenders("counting", ["a", "b"], {"words": 7}) as started:
        for number in (1, 2, 3):
            for contender in started:
                contender.take(number)
    one, other = started
    assert (one.version, other.version) == ("a 1.0", "b 1.0")
    assert [turn["number"] for turn in one.turns] == [1, 2, 3]
    assert all(turn["words"] * turn["seconds"] == pytest.approx(7) for turn in one.turns)
    assert one.peak() > 2**20
    assert one.process.poll() == other.process.poll() == 0


def test_a_contender_that_fails_ends_the_benchmark(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("def make(name, task): raise ValueError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match="a ended with status 1"):
        Contender("failing", "a", {})


DYING = """
def make(name, task):
    return "1.0", lambda number: {"done": {}} if name == "b" or number < 2 else exit(3)
"""


def test_a_contender_that_dies_is_named_and_the_others_end(tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("benchmarks.turns.PAUSE", 0)
    with (
        pytest.raises(SystemExit, match="a ended with status 3"),
        contenders("dying", ["a", "b"], {}) as started,
    ):
        take_turns(started, 5)
    assert [c.process.poll() for c in started] == [3, 0]


def test_whole_rounds_count_after_an_interrupt(monkeypatch):
    def interrupt(number):
        raise KeyboardInterrupt

    one, other = made("a", []), made("b", [])
    for contender, take in ((one, one.turns.append), (other, other.turns.append)):
        monkeypatch.setattr(contender, "take", take)
    assert take_turns([one, other], 2) is True and one.turns == other.turns == [1, 2]
    monkeypatch.setattr(other, "take", interrupt)
    assert take_turns([one, other], 2) is False and one.turns == other.turns == [1, 2]
    del one.turns[:], other.turns[:]
    with pytest.raises(KeyboardInterrupt):
        take_turns([one, other], 2)


def test_libraries_that_are_not_there_are_left_out(monkeypatch, capsys):
    modules = {"a": "no_such_module", "b": "json"}
    assert installed(["a", "b", "c"], modules) == ["b", "c"]
    assert capsys.readouterr().err == "not installed: a\n"
    with pytest.raises(SystemExit, match="nothing is left to compare"):
        installed(["a"], modules)


@pytest.mark.parametrize("arguments", [["--json", "no/x.json"], ["--rounds", "0"]])
def test_mistakes_are_found_before_the_work(arguments, monkeypatch, capsys):
    for module in (train, translate):
        with pytest.raises(SystemExit, match="2"):
            module.main(arguments)
        assert "argument --" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.thorough if name == COMPILED_AGAIN else ())
        for name in CONTENDERS
    ],
)
def test_every_contender_learns(name, monkeypatch):
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    monkeypatch.setitem(SIZES, "tiny", Size(1, 32, 64, 2, (4, 7), 2))
    monkeypatch.setattr(training_contenders, "use_cores", lambda threads: None)
    task = {"size": "tiny", "dropout": 0.0, "dropout_rng": "portable", "threads": 1}
    _, turn = training_contenders.make(name, task)
    losses = [turn(number)["loss"] for number in range(3)]
    assert np.isfinite(losses).all() and losses[2] < losses[1] < losses[0]


def made(name, turns):
    contender = object.__new__(Contender)
    contender.name, contender.turns = name, turns
    return contender


def test_ratios_are_taken_round_by_round():
    one = made("a", [{"rate": 2.0}, {"rate": 9.0}])
    other = made("b", [{"rate": 4.0}, {"rate": 3.0}])
    assert ratios(one, other, "rate") == [0.5, 3.0]


def test_equal_outputs_are_counted_by_sentence():
    one = made("a", [{"outputs": [[4], [5, 6]]}, {"outputs": [[7], []]}])
    other = made("b", [{"outputs": [[4], [5]]}, {"outputs": [[7], []]}])
    assert equal_share(one, other) == 3 / 4


def test_arithmetic_counts_every_product():
    """By hand: one layer each, D 2, F 3, V 10,000, one row, S 5, T 7."""
    size = training_sizes.Size(1, 2, 3, 1, (1, 5), 1)
    batch = full_batch(1, 7, 0)
    batch = dataclasses.replace(batch, source=batch.source[:, :5])
    encoder = 2 * 5 * (4 * 4 + 2 * 6) + 4 * 25 * 2
    decoder = 2 * 7 * (6 * 4 + 2 * 6) + 4 * 5 * 4 + 4 * 49 * 2 + 4 * 35 * 2
    assert arithmetic(size.config(0.1), batch) == 3 * (encoder + decoder + 2 * 7 * 2 * 10_000)


def test_multi30k_lengths_without_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(training_sizes, "MULTI30K", tmp_path)
    monkeypatch.setenv("TWINFORMER_DATA", str(tmp_path))
    assert training_sizes.lengths_from("Multi30k") == "drawn, the data is not there"
    pairs = multi30k_pairs()
    lengths = np.array([[len(source), len(target)] for source, target in pairs])
    assert len(pairs) == 29_000 and 11 < lengths.mean() < 14
    assert BatchPlan(pairs, 4096).padding < 0.15


def test_multi30k_lengths_of_the_data(tmp_path, monkeypatch):
    folder = tmp_path / "multi30k-en-de"
    folder.mkdir()
    (folder / "train.lc.norm.tok.en").write_text("a b c\nd\n")
    (folder / "train.lc.norm.tok.de").write_text("e f\ng h i j\n")
    monkeypatch.setenv("TWINFORMER_DATA", str(tmp_path))
    assert training_sizes.multi30k_lengths().tolist() == [[3, 2], [1, 4]]
    assert training_sizes.lengths_from("Multi30k") == "as in the data"
    assert training_sizes.lengths_from("D 256") == "all of one length"


def test_sizes_are_what_they_say():
    batch = SIZES["D 256"].make_batches()[0]
    assert batch.source.shape == batch.target_in.shape == (64, 60)
    assert batch.tokens == batch.source_tokens == 64 * 60
    assert np.array_equal(batch.target_in[:, 1:], batch.target_out[:, :-1])


def test_sentences_keep_their_order_in_batches():
    config = base_config()
    ids = sentences(70, config)
    assert in_batches(lambda part: [[len(words)] for words in part], ids) == [[len(i)] for i in ids]
    assert not {config.pad_id, config.eos_id} & set().union(*ids)


def test_random_model_never_ends_a_sentence_by_itself():
    config = base_config(50, hidden_dim=8, inner_dim=8, num_heads=2)
    weights = random_weights(config)
    assert weights["decoder.finalFc.bias"].argmin() == config.eos_id
    assert not weights["encoder.embedding.weight"][config.pad_id].any()


def test_pictures(tmp_path):
    numbers = {"target_tokens": 9.0, "peak_bytes": 2**30, "output_tokens": 3.0}
    found = json.loads(json.dumps({"twinformer, JAX": numbers, "other": numbers}))
    draw_training({"compared": [{"size": "D 256", "contenders": found}]}, tmp_path / "a.png")
    draw_translation({"contenders": found}, tmp_path / "b.png")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png"))


PROGRAM = """
  %a = f32[4,8]{1,0} all-gather(%w), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}
  %g = f32[4,8]{1,0} reduce-scatter(%x), channel_id=2, replica_groups=[2,2]<=[4], dimensions={0}
  %r = (f32[3]{0}, f64[]) all-reduce(%y, %z), channel_id=3, replica_groups={{0,1,2,3}}, to_apply=%s
  %n = f32[5]{0} add(%p, %q)
"""


def test_collectives_are_read_in_a_program():
    """By hand: a gathered half is 64 bytes, what is scattered twice the 128 of a part."""
    sent = scale_counts.collectives(PROGRAM, 4)
    assert sent == [("all-gather", 64, 2), ("reduce-scatter", 256, 2), ("all-reduce", 20, 4)]
    found = scale_counts.summary([*sent, ("all-reduce", 1000, 1)])
    assert found["collectives"] == {"all-gather": 1, "all-reduce": 1, "reduce-scatter": 1}
    assert found["operand_bytes"] == 64 + 256 + 20
    assert found["sent_in_a_ring"] == 64 * 1 + 256 / 2 + 20 * 2 * 3 / 4


@pytest.mark.slow
def test_torch_sends_each_gradient_once():
    pytest.importorskip("torch")
    shapes = weight_shapes(scale_sizes.config_of("tiny"))
    weights = sum(4 * int(np.prod(shape)) for shape in shapes.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sent = scale_counts.sent_by_torch("tiny", Mesh(data=4))
    assert {kind for kind, _, members in sent if members > 1} == {"all-reduce"}
    assert sum(size for _, size, members in sent if members > 1) == weights + 4  # and the loss


@pytest.mark.parametrize(
    "name", [name for name in scale_contenders.NAMES if scale_contenders.MESH not in name]
)
def test_steps_of_one_device_that_are_timed(name, monkeypatch):
    monkeypatch.setattr(scale_contenders, "use_cores", lambda threads: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = pytest.importorskip("jax" if name.startswith("twinformer, JAX") else "torch")
    task = {"size": "tiny", "steps": 2, "threads": 1, "before": str(scale.ROOT)}
    version, turn = scale_contenders.make(name, task)
    assert package.__version__ in version
    losses = [turn(number)["loss"] for number in range(3)]
    assert losses[2] < losses[0] and turn(3)["cpu"] > 0


@pytest.mark.thorough
def test_a_step_on_a_mesh_of_one(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("benchmarks.turns.PAUSE", 0)
    task = {"size": "tiny", "steps": 2, "threads": 1}
    with contenders("benchmarks.scale_contenders", scale_contenders.NAMES[3:5], task) as started:
        take_turns(started, 1)
    plain, spread = started
    assert spread.name.endswith("on a mesh of one")
    assert [plain.first["loss"], plain.turns[0]["loss"]] == pytest.approx(
        [spread.first["loss"], spread.turns[0]["loss"]], rel=1e-5
    )


def test_the_code_of_another_folder_is_not_timed_unseen(tmp_path):
    with pytest.raises(SystemExit, match="is not the code of"):
        scale_contenders.check_code_of(str(tmp_path))


def test_ratios_to_the_plain_step(capsys):
    plain, other = (
        made(name, [{"cpu": cpu}, {"cpu": cpu}])
        for name, cpu in ((scale_contenders.JAX, 0.002), (f"{scale_contenders.JAX}, before", 0.004))
    )
    plain.version = other.version = "1.0"
    found = scale.report([plain, other])
    assert [found[c.name]["ratio"] for c in (plain, other)] == [1.0, 0.5]
    assert "before" in capsys.readouterr().out


def test_padding_grows_with_the_devices(monkeypatch):
    monkeypatch.setattr(scale, "pairs", lambda: [([1] * n, [1] * n) for n in range(1, 9)] * 5)
    found = scale.padding(64)
    assert 0 <= found["2"] <= found["64"] < found["256"] < 1


def test_a_folder_that_is_no_checkout(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        scale.main(["--before", str(tmp_path)])
    assert "is no checkout" in capsys.readouterr().err


def test_every_slip_of_speech_is_one_of_the_list():
    """What is planted in models that hear is there for one of their kind."""
    pytest.importorskip("torch")
    from parity_cases import WHISPER, torch_side

    from benchmarks import speech_slips
    from parity.comparison.causes import subject_of
    from parity.sound.front_ends import SLIPS

    right = subject_of(torch_side(WHISPER))
    planted = [speech_slips.variant(right, *names) for names in speech_slips.OF_MODEL.values()]
    assert len({id(wrong) for wrong in planted} | {id(right)}) == len(planted) + 1
    assert set(speech_slips.OF_SOUND.values()) <= set(SLIPS)
    assert len(speech_slips.OF_MODEL) + len(speech_slips.OF_SOUND) + 2 == 19
    rows = [speech_slips.Row("none", 0.0, 0.0, 1.0, " hello", True)]
    rows += [speech_slips.Row(f"slip {k}", 10.0**-k, 0.1, 0.5, "", k > 9) for k in (1, 10, 11)]
    assert speech_slips.verdict(rows).startswith("1 of 3 slips are seen in float64 logits; 2 of")
    assert speech_slips.in_words(rows[1]) == "| slip 1 | 1.0e-01 | 1.0e-01 | 50% | empty |"
