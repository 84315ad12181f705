"""T5X checkpoints in both twins: logits in float64, and the way there and back, byte by byte."""

import json
from dataclasses import replace
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
import torch
from convert_cases import assert_same_arrays, convert, fail
from family_checks import twin_logits
from family_table import assert_measured, max_difference
from messages import says
from t5x_cases import (
    CASES,
    FAR,
    Case,
    D,
    F,
    V,
    logits,
    nested,
    packed,
    states_of,
    stored,
    write_checkpoint,
)
from transformers import T5ForConditionalGeneration, UMT5ForConditionalGeneration

from convert import SourceRequest, inspect
from convert.conversion.opening import open_model
from convert.core.tensors import Header
from convert.families.t5x.form import Form, check_form
from transformer_spec import Faults, UserError

UNLIKE_OTHERS = ("t5 1.1", "t5 1.0", "scalable, scanned")
FORMS = [pytest.param(n, marks=[pytest.mark.thorough] * (n not in UNLIKE_OTHERS)) for n in CASES]


def ids(B: int = 3, S: int = 29, T: int = 26) -> tuple[np.ndarray, np.ndarray]:
    """Sources padded right and left, targets that begin with the padding token."""
    draw = np.random.default_rng(1)
    source, target = draw.integers(2, V, (B, S)), draw.integers(2, V, (B, T))
    target[:, 0] = 0
    source[1, 20:], source[2, :5], target[1, 17:] = 0, 0, 0
    return source, target


def headers_of(shapes: dict) -> dict[str, Header]:
    return {name: Header(shape, np.dtype(np.float32)) for name, shape in shapes.items()}


def seen_of(target: np.ndarray) -> np.ndarray:
    seen = target != 0
    seen[:, 0] = True
    return seen


@pytest.fixture
def run(tmp_path):
    """(case) -> its arrays, in a run folder with a gin file."""

    def write(case: Case, **options):
        arrays = case.arrays()
        write_checkpoint(tmp_path / "run", arrays, **options)
        (tmp_path / "run" / "config.gin").write_text(case.gin())
        return arrays

    return write


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", FORMS)
def test_every_form_in_both_twins_and_back(name, run, tmp_path):
    case = CASES[name]
    arrays = run(case)
    convert(tmp_path / "run", tmp_path / "ours", "--to", "torch")
    source, target = ids()
    found = open_model(tmp_path / "ours")
    expected = logits(arrays, case, source, target)
    twins = twin_logits(found.config, found.weights(), source, target)
    assert_measured("t5x", "in", max_difference(twins, expected, seen_of(target)))
    assert found.config.dropout == found.config.final_dropout == 0.25
    convert(tmp_path / "ours", tmp_path / "back", "--to", "t5x")
    assert_same_arrays(stored(tmp_path / "back" / "checkpoint_1100"), arrays)
    assert (tmp_path / "back" / "config.gin").read_text() == case.gin()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("t5 1.1", T5ForConditionalGeneration),
        pytest.param("t5 1.0", T5ForConditionalGeneration, marks=pytest.mark.thorough),
        pytest.param("scalable", UMT5ForConditionalGeneration, marks=pytest.mark.thorough),
    ],
)
def test_the_walk_through_a_folder_of_transformers(name, model_class, run, tmp_path):
    """T5X -> our twin -> the PyTorch library's folder -> T5X, whose arrays are the same bytes."""
    case, family = CASES[name], model_class.__name__.partition("For")[0].lower()
    arrays = run(case)
    convert(tmp_path / "run", tmp_path / "ours", "--to", "flax")
    convert(tmp_path / "ours", tmp_path / "library", "--to", family)
    convert(tmp_path / "library", tmp_path / "back", "--to", "t5x")
    assert_same_arrays(stored(tmp_path / "back" / "checkpoint_0"), arrays)
    source, target = ids()
    model = model_class.from_pretrained(tmp_path / "library", dtype=torch.float64).eval()
    if family == "umt5":  # which version 5 says to be tied, and scales
        model.config.tie_word_embeddings = False
    with torch.no_grad(), mock.patch.object(torch, "float32", torch.float64):
        theirs = model(
            input_ids=torch.from_numpy(source),
            attention_mask=torch.from_numpy(source != 0).long(),
            decoder_input_ids=torch.from_numpy(target),
            decoder_attention_mask=torch.from_numpy(seen_of(target)).long(),
        ).logits.numpy()
    expected = logits(arrays, case, source, target)
    assert_measured("t5x", "in", max_difference([theirs], expected, seen_of(target)))


def test_another_family_is_not_asked_for(run, tmp_path, capsys):
    run(CASES["t5 1.1"])
    words = tmp_path / "run", tmp_path / "ours", "--to", "torch", "--from", "t5"
    says(fail(capsys, *words), "is not of t5", "names are those of t5x")


def test_a_folder_of_transformers_has_no_tokenizer_of_it(run, tmp_path, capsys):
    run(CASES["t5 1.1"])
    convert(tmp_path / "run", tmp_path / "library", "--to", "t5")
    says(capsys.readouterr().out, "no tokenizer", "comes without vocabularies")


class TestWhatTheArraysDoNotSay:
    def test_the_activation_is_asked_for(self, tmp_path, capsys):
        write_checkpoint(tmp_path / "run", CASES["t5 1.1"].arrays())
        words = tmp_path / "run", tmp_path / "ours", "--to", "torch"
        says(fail(capsys, *words), "give --activation", "--config", "gin")
        assert not (tmp_path / "ours").exists()
        flags = "--activation", "silu", "--dropout", "0.5", "--max-length", "99"
        convert(*words, *flags, "--relative-max-distance", FAR)
        config = open_model(tmp_path / "ours").config
        assert (config.activation, config.final_dropout, config.max_length) == ("silu", 0.5, 99)
        assert "pad_id 0, eos_id 1" in capsys.readouterr().out

    def test_a_gin_file_is_given(self, tmp_path):
        case = CASES["t5 1.1"]
        write_checkpoint(tmp_path / "run", case.arrays())
        (tmp_path / "other.gin").write_text(case.gin())
        words = tmp_path / "run", tmp_path / "ours", "--to", "flax"
        convert(*words, "--config", tmp_path / "other.gin")
        config = open_model(tmp_path / "ours").config
        assert (config.activation, config.dropout) == ("gelu_tanh", 0.25)
        origin = json.loads((tmp_path / "ours" / "origin.json").read_text())
        assert origin["settings"]["step"] == 1100

    def test_a_gin_file_that_says_otherwise(self, run, tmp_path, capsys):
        run(CASES["t5 1.1"])
        text = CASES["t5 1.1"].gin().replace("num_heads = 3", "num_heads = 5")
        text = text.replace("embedding = False", "embedding = True").replace("'gelu'", "'tanh'")
        (tmp_path / "run" / "config.gin").write_text(text + "x.Norm.center_scale_at_zero = True\n")
        told = fail(capsys, tmp_path / "run", tmp_path / "ours", "--to", "torch")
        assert "center_scale_at_zero" in told
        (tmp_path / "run" / "config.gin").write_text(text + "x.scan_axis = 'one'\n")
        told = fail(capsys, tmp_path / "run", tmp_path / "ours", "--to", "torch")
        says(told, "axis 'one'", "0 and 1 are read")
        (tmp_path / "run" / "config.gin").write_text(text)
        told = fail(capsys, tmp_path / "run", tmp_path / "ours", "--to", "torch")
        says(told, "3 faults")
        says(told, "num_heads is 3", "says 5")
        says(told, "logits_via_embedding is True", "is there")
        says(told, "('tanh', 'linear')", "gelu", "silu")

    def test_which_axis_the_layers_have(self):
        """It is told by the feed-forward's width, unless there are as many layers."""
        for name, axis in (("scalable, scanned", 1), ("scanned along axis 0", 0)):
            headers = headers_of(CASES[name].shapes())
            assert Form.of(headers).axis == axis
        square = {n: (F, F, D) if n.endswith("wo.kernel") else shape
                  for n, shape in CASES["scalable, scanned"].shapes().items()}  # fmt: skip
        for axis, count in ((None, 1), (1, 0)):
            faults = Faults()
            check_form(headers_of(square), axis, faults)
            assert len(faults.messages) == count
            assert all("param_scan_axis" in message for message in faults.messages)

    def test_settings_of_another_library(self, run, tmp_path, capsys):
        run(CASES["t5 1.1"])
        (tmp_path / "config.json").write_text('{"model_type": "t5", "d_model": 13}')
        words = tmp_path / "run", tmp_path / "ours", "--to", "torch"
        told = fail(capsys, *words, "--from", "t5x", "--config", tmp_path / "config.json")
        says(told, "--config is of another library", "d_model", "gin")


class TestRefusals:
    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ("mlp.wi_0", "mlp.wi_fused", "feed-forward's matrices are fused"),
            ("attention.key", "attention.kv_fused", "attention's matrices are fused"),
            ("mlp.wo", "mlp.expert.wo", "mixture of experts"),
            ("encoder.relpos_bias", "encoder.side_relpos_bias", "LongT5"),
        ],
    )
    def test_other_models_by_name(self, old, new, told, tmp_path, capsys):
        arrays = {n.replace(old, new): a for n, a in CASES["t5 1.1"].arrays().items()}
        place = write_checkpoint(tmp_path / "run", arrays, small=10**6)
        words = place, tmp_path / "ours", "--to", "torch", "--activation", "silu"
        assert told in fail(capsys, *words)

    def test_half_a_model(self, tmp_path, capsys):
        arrays = CASES["t5 1.1"].arrays()
        decoder = {n: a for n, a in arrays.items() if not n.startswith("encoder.")}
        place = write_checkpoint(tmp_path / "run", decoder, small=10**6)
        words = place, tmp_path / "ours", "--to", "torch", "--from", "t5x"
        assert "has no encoder" in fail(capsys, *words)

    def test_weights_that_are_missing_are_all_named(self, tmp_path, capsys):
        arrays = CASES["t5 1.1"].arrays()
        for name in ("encoder.layers_1.mlp.wo.kernel", "decoder.decoder_norm.scale"):
            del arrays[name]
        place = write_checkpoint(tmp_path / "run", arrays, small=10**6)
        words = place, tmp_path / "ours", "--to", "torch", "--activation", "silu"
        told = fail(capsys, *words)
        says(told, "encoder.layers_1.mlp.wo.kernel", "missing")
        says(told, "decoder.decoder_norm.scale", "missing")

    def test_a_model_that_t5x_cannot_hold(self, run, tmp_path, capsys):
        run(CASES["t5 1.1"])
        convert(tmp_path / "run", tmp_path / "ours", "--to", "torch")
        path = tmp_path / "ours" / "config.json"
        content = json.loads(path.read_text())
        content["model"] |= {"norm_epsilon": 1e-5, "activation": "gelu", "output_scale": 0.5}
        path.write_text(json.dumps(content))
        capsys.readouterr()
        told = fail(capsys, tmp_path / "ours", tmp_path / "back", "--to", "t5x")
        for part in ("norm_epsilon is 1e-05", "activation is 'gelu'", "output_scale is 0.5"):
            says(told, part)
        assert not (tmp_path / "back").exists()


class TestWhatLiesAround:
    def test_the_state_of_adafactor_is_named_and_left(self, run, tmp_path, capsys):
        run(CASES["t5 1.1"], states=True)
        found = inspect(SourceRequest(tmp_path / "run"))
        assert (found.family, found.container, found.optimizer) == ("t5x", "t5x", None)
        assert any("it keeps v_row, as Adafactor does" in note for note in found.notes)
        convert(tmp_path / "run", tmp_path / "ours", "--to", "torch")
        ledger = json.loads((tmp_path / "ours" / "conversion.json").read_text())
        state = ledger["sources"]["optimizer.state.param_states.encoder.encoder_norm.scale.v"]
        assert state["what"] == "dropped" and "optimizer" in state["reason"]
        files = ledger["files"]
        assert files["config.gin"] | {"sha256": ""} == {
            "what": "carried", "to": "original/config.gin", "sha256": ""
        }  # fmt: skip

    def test_a_step_folder_or_its_tree_is_named(self, run, tmp_path):
        arrays = run(CASES["t5 1.1"])
        place = tmp_path / "run" / "checkpoint_1100"
        for number, source in enumerate((place, place / "checkpoint")):
            convert(source, tmp_path / f"ours{number}", "--to", "torch")
            convert(tmp_path / f"ours{number}", tmp_path / f"back{number}", "--to", "t5x")
            back = stored(tmp_path / f"back{number}" / "checkpoint_1100")
            assert_same_arrays(back, arrays)

    @pytest.mark.parametrize("version", [0, 3])
    def test_a_small_one_is_one_file(self, version, tmp_path):
        arrays = CASES["t5 1.0"].arrays()
        options = {"version": version, "small": 10**6}
        place = write_checkpoint(tmp_path / "run", arrays, 7, **options)
        file = (place / "checkpoint").rename(tmp_path / "tiny.checkpoint_7")
        convert(file, tmp_path / "ours", "--to", "torch", "--activation", "relu")
        convert(tmp_path / "ours", tmp_path / "back", "--to", "t5x")
        assert_same_arrays(stored(tmp_path / "back" / "checkpoint_7"), arrays)

    def test_a_tree_of_names_as_orbax_wrote_it(self, tmp_path):
        """``state/checkpoint`` has the names of arrays, each of which lies in a zarr folder."""
        import msgpack
        from t5x_cases import specified

        arrays = CASES["t5 1.0"].arrays()
        place = tmp_path / "checkpoint_9" / "state"
        place.mkdir(parents=True)
        every = {f"target.{n}": a for n, a in arrays.items()}
        every |= {f"state.param_states.{n}": a for n, a in states_of(arrays).items()}
        for name, array in every.items():
            specified(place, name, array, "file", {"id": "zstd", "level": 1})
        names = {name: f"PLACEHOLDER://{name}" for name in every}
        tree = nested(names | {"state.step": packed(np.array(9, np.int32))})
        (place / "checkpoint").write_bytes(msgpack.packb(tree))
        words = tmp_path / "checkpoint_9", tmp_path / "ours", "--to", "torch"
        convert(*words, "--activation", "relu")
        convert(tmp_path / "ours", tmp_path / "back", "--to", "t5x")
        assert_same_arrays(stored(tmp_path / "back" / "checkpoint_9"), arrays)

    def test_bfloat16(self, tmp_path):
        """There and back, with a number that flaxformer leaves as a mark of its format."""
        case = replace(CASES["scalable, scanned"], dtype=ml_dtypes.bfloat16)
        arrays = case.arrays() | {"encoder.encoder.__version__": np.array(2, np.int32)}
        write_checkpoint(tmp_path / "run", arrays)
        (tmp_path / "run" / "model.gin").write_text(case.gin())
        convert(tmp_path / "run", tmp_path / "ours", "--to", "flax")
        convert(tmp_path / "ours", tmp_path / "back", "--to", "t5x")
        assert_same_arrays(stored(tmp_path / "back" / "checkpoint_1100"), arrays)

    def test_changed_numbers_are_noticed(self, run, tmp_path):
        run(CASES["t5 1.0"])
        convert(tmp_path / "run", tmp_path / "ours", "--to", "torch")
        convert(tmp_path / "ours", tmp_path / "back", "--to", "t5x")
        other = CASES["t5 1.0"].arrays(seed=1)
        place = write_checkpoint(tmp_path / "other", other, small=0)
        (place / "checkpoint").replace(tmp_path / "back" / "checkpoint_1100" / "checkpoint")
        for folder in (tmp_path / "back" / "checkpoint_1100").glob("target.*/"):
            for file in folder.iterdir():
                file.unlink()
            for file in (place / folder.name).iterdir():
                file.rename(folder / file.name)
        with pytest.raises(UserError, match="does not hold what was converted"):
            open_model(tmp_path / "back").weights()
