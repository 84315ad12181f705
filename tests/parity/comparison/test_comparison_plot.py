"""parity.png: every row has its place, nothing that was measured is lost."""

import math

import pytest
from parity_cases import MEASURED, report_with

from parity.comparison.plot import Scale, draw, grouped, plot, scale_of
from parity.comparison.report import Rounding, Row
from parity.forward.substeps import is_step, substeps
from parity.twins.cases import config_of
from transformer_spec import UserError

ERRORS = {"float32": 2e-7, "one-pass bf16": 1e-3}


def report_of(layers=6, failing=None, judged=()):
    """``judged`` are float64 errors of the first rows."""
    config = config_of({"num_encoder_layers": layers, "num_decoder_layers": layers})
    steps = (*substeps(config), "loss", "gradient of decoder.finalFc.weight")
    wide = [1e-4 if step == failing else 3e-16 for step in steps]
    wide[: len(judged)] = judged
    rows = [Row(step, error, 1e-11, 1.0, ERRORS) for step, error in zip(steps, wide, strict=True)]
    return report_with(rows, budget={"float32": Rounding(None, MEASURED, (1e-8, 2e-5))})


def drawn(report):
    figure = draw(report, list(grouped([row for row in report.rows if is_step(row.part)])))
    (axes,) = figure.axes
    return axes, {line.get_label(): line for line in axes.get_lines()}


def test_writes_a_png(tmp_path):
    path = plot(report_of(2), tmp_path / "parity.png")
    assert path.read_bytes().startswith(b"\x89PNG") and list(tmp_path.iterdir()) == [path]


def test_a_line_for_each_format_and_a_label_for_each_layer():
    report = report_of()
    axes, lines = drawn(report)
    assert {"float64", *ERRORS} <= lines.keys() and "FAIL" not in "".join(lines)
    assert len(lines["float32"].get_ydata()) == len(report.rows) - 2
    labels = [label.get_text() for label in axes.get_xticklabels()]
    halves = [(half, range(1, 7)) for half in ("encoder", "decoder")]
    names = [[f"{h} embedding", *(f"{h} {n}" for n in numbers)] for h, numbers in halves]
    assert labels == [*names[0], *names[1], "logits"]


def test_zero_is_at_the_bottom_and_nan_at_the_top():
    report = report_of(1, judged=(0.0, math.nan, math.inf))
    axes, lines = drawn(report)
    bottom, top = axes.get_ylim()
    heights = list(lines["float64"].get_ydata())
    assert heights[:3] == [bottom, top, top]
    assert bottom < 3e-16 and not lines["float64"].get_clip_on()
    assert [t.get_text() for t in axes.get_yticklabels()][:: len(axes.get_yticks()) - 1] == [
        "0",
        "NaN, inf",
    ]


def test_failures_are_marked_and_the_first_is_named():
    failing = "decoder.dec_layers.4.ffn.fc1"
    axes, lines = drawn(report_of(failing=failing))
    assert list(lines["FAIL (1)"].get_ydata()) == [1e-4]
    assert [text.get_text() for text in axes.texts] == [f"first FAIL: {failing}"]


def test_band_and_bound():
    axes, _ = drawn(report_of(1))
    boxes = {p.get_label(): p for p in axes.patches}
    low, high = (
        boxes["float32: honest rounding"]
        .get_extents()
        .transformed(axes.transData.inverted())
        .intervaly
    )
    assert (low, high) == pytest.approx((1e-8, 2e-5))
    assert set(boxes["bound of float64"].get_data().values) == {1e-11}


def test_scale_leaves_a_decade_for_zero():
    assert scale_of([Row("logits", 2e-15, 1e-11)], {}) == Scale(
        pytest.approx(1e-16), pytest.approx(1e-10)
    )


@pytest.mark.parametrize("layers", [1, 24])
def test_few_or_many_layers(layers):
    axes, _ = drawn(report_of(layers))
    assert 5 <= len(axes.get_xticks()) <= 31


def test_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="no sub-step and no logits"):
        plot(report_with([Row("loss", 0.0, 1e-10)]), tmp_path / "parity.png")
    with pytest.raises(UserError, match="cannot write"):
        plot(report_of(1), tmp_path / "none" / "parity.png")
