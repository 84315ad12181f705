"""Models that read features as sides: the twins, own code, a class of transformers, and slips."""

import json
from dataclasses import replace

import numpy as np
import pytest
from messages import saying, says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from parity_cases import (  # noqa: E402
    WHISPER,
    flax_side,
    random_weights,
    report_with,
    torch_side,
    write,
)

from parity.comparison.comparison import compare, compare_sides  # noqa: E402
from parity.comparison.report import Agreement, Report, Rounding, Row, json_of  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.comparison.text import as_text, spread_lines  # noqa: E402
from parity.forward.substeps import is_step, substeps  # noqa: E402
from parity.naming.search import check_reads_tokens  # noqa: E402
from parity.sides.opening import open_side  # noqa: E402
from transformer_spec import UserError, trained_names  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
OWN_CODE = """
import torch_transformer
from transformer_spec import TransformerConfig

def torch_module():
    return torch_transformer.load({folder!r})

def jax_module():
    import flax_transformer

    return flax_transformer.load({folder!r})
"""


def test_every_sub_step_and_gradient_of_the_twins():
    weights = random_weights(WHISPER)
    report = compare_sides(
        torch_side(WHISPER, weights), flax_side(WHISPER, weights), Settings(("float32",))
    )
    assert report.same, report.verdict
    parts = [row.part for row in report.rows]
    assert [part for part in parts if is_step(part)] == substeps(WHISPER)
    gradients = {part.removeprefix("gradient of ") for part in parts if "gradient" in part}
    assert gradients == set(trained_names(WHISPER))
    tables = ["decoder.embedding", "encoder.pos_embedding", "decoder.pos_embedding"]
    rows = [part for part in parts if part.startswith("every row")]
    assert rows == [f"every row of {table}.weight" for table in tables]
    assert "float32 over the logits' spread of" in as_text(report)
    assert Report.from_dict(json.loads(json_of(report.to_dict()))) == report


@pytest.mark.parametrize(
    "name", ["torch_module", pytest.param("jax_module", marks=pytest.mark.thorough)]
)
def test_code_of_one_s_own_is_given_features(tmp_path, name):
    folder = write(tmp_path / "model", WHISPER, random_weights(WHISPER))
    (tmp_path / "own.py").write_text(OWN_CODE.format(folder=str(folder)))
    report = compare(str(folder), f"module:{tmp_path}/own.py:{name}", Settings((), gradients=False))
    assert report.same, report.verdict
    assert any("19 target tokens are looked up" in note for note in report.notes)
    assert not any("source" in note for note in report.notes)


def test_whisper_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {f"{half}_{what}": n for half in ("encoder", "decoder") for what, n in
             (("layers", 1), ("attention_heads", 3), ("ffn_dim", 20))}  # fmt: skip
    config = transformers.WhisperConfig(
        vocab_size=97, d_model=12, num_mel_bins=5, max_source_positions=7,
        max_target_positions=11, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "library")
    given = str(tmp_path / "library")
    report = compare(f"hf:{given}", given, Settings(()))
    assert report.same, report.verdict
    assert report.batches[0][0] == (3, 14, 5)
    ours = open_side(given).config
    parts = [row.part for row in report.rows]
    assert [part for part in parts if is_step(part)] == substeps(ours)
    gradients = {p.split(" but ")[0].removeprefix("gradient of ") for p in parts if "gradient" in p}
    assert gradients == set(trained_names(ours))
    trained = replace(ours, encoder_positions="learned")
    other = write(tmp_path / "trained", trained, dict(open_side(given).weights or {}))
    verdict = compare(f"hf:{given}", str(other), Settings(())).verdict
    assert verdict.startswith("same function")
    says(verdict, "not judged", "encoder_positions (A 'frozen', B 'learned')")
    np.save(tmp_path / "short.npy", np.ones((9, 5)))
    with pytest.raises(UserError, check=saying("no fewer and no more")):
        compare(f"hf:{given}", given, Settings((), features=str(tmp_path / "short.npy")))


def test_a_bias_of_fcK_moves_a_sub_step_and_no_logits():
    config = replace(WHISPER, key_bias=True)
    weights = random_weights(config)
    without = {name: a for name, a in weights.items() if not name.endswith("fcK.bias")}
    report = compare_sides(
        torch_side(config, weights), torch_side(WHISPER, without, "b"), Settings((), False)
    )
    assert report.first.part == "encoder.enc_layers.0.multiheadattention.fcK"
    assert report.agreement.max_abs <= 1e-13
    assert "softmax drops it, and the logits are the same" in report.verdict
    assert report.causes[0].name == "bias of fcK"


def test_modules_that_read_features_are_not_searched():
    for shape in ((8, 8, 3), (3, 8, 8)):
        subject = torch_side(WHISPER)
        subject.given, subject.shapes = "module:a.py:f", {"c.conv2.weight": shape}
        with pytest.raises(UserError, check=saying("reads features: c.conv2.weight")):
            check_reads_tokens(subject)
    subject.shapes = {"a": (8, 2, 4), "b": (2, 4, 8), "c": (3, 8, 4)}
    check_reads_tokens(subject)


def agreement(error: float, spread: float) -> Agreement:
    return Agreement(error, 0.0, 0.0, 0.0, 1.0, 1.0, spread=spread)


@pytest.mark.parametrize(
    ("error", "spread", "over", "word"),
    [
        (5.7e-5, 6.7, 5.7e-5 / 6.7, "within"),
        (5.7e-5, 1.0, 5.7e-5, "beyond"),
        (1.9e-5, 0.1, 1.9e-5, "within"),
        (1.6e-4, 6.7, 1.6e-4 / 6.7, "beyond"),
    ],
)
def test_float32_is_bound_over_a_spread_above_one(error, spread, over, word):
    found = agreement(error, spread)
    assert found.over_spread == pytest.approx(over)
    budget = {"float32": Rounding(found, None, (0.0, 1.0))}
    (line,) = spread_lines(budget)
    assert f", {word} the bound of 2e-05" in line
    assert (f"spread of {spread:.1f}" in line) == (spread > 1)
    report = report_with([Row("decoder.finalFc", 0.0, 1e-11)], budget=budget)
    told = report.to_dict()
    assert told["budget"]["float32"]["a"]["over_spread"] == pytest.approx(over)
    assert told["float32_bound"] == 2e-5


def test_reports_from_before_the_spread_are_read():
    told = report_with([Row("decoder.finalFc", 0.0, 1e-11)]).to_dict()
    for name in ("spread", "over_spread"):
        del told["agreement"][name]
    for name in ("features", "audio"):
        del told["settings"][name]
    assert Report.from_dict(told).agreement.spread == 1.0
