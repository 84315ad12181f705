"""parity.png: every row has its place, nothing that was measured is lost."""

import math

import pytest

from parity.cases import config_of
from parity.plot import Scale, draw, errors, grouped, is_step, plot, scale_of
from parity.substeps import substeps
from transformer_spec import UserError

ERRORS = {"float64": 3e-16, "float32": 2e-7, "one-pass bf16": 1e-3}


def report_of(layers=6, failing=None):
    config = config_of({"num_encoder_layers": layers, "num_decoder_layers": layers})
    rows = []
    for step in (*substeps(config), "loss", "gradient of decoder.finalFc.weight"):
        found = dict(ERRORS)
        if step == failing:
            found["float64"] = 1e-4
        good = found["float64"] <= 1e-11
        rows.append({"part": step, "errors": found, "bound": 1e-11, "passed": good})
    budget = {"float32": {"max_abs": 5e-6, "honest": [1e-8, 2e-5]}}
    return {"rows": rows, "budget": budget, "verdict": "said", "a": {"given": "one"}}


def drawn(report):
    figure = draw(report, list(grouped([r for r in report["rows"] if is_step(r["part"])])))
    (axes,) = figure.axes
    return axes, {line.get_label(): line for line in axes.get_lines()}


def test_writes_a_png(tmp_path):
    path = plot(report_of(2), tmp_path / "parity.png")
    assert path.read_bytes().startswith(b"\x89PNG") and list(tmp_path.iterdir()) == [path]


def test_a_line_for_each_format_and_a_label_for_each_layer():
    report = report_of()
    axes, lines = drawn(report)
    assert set(ERRORS) <= lines.keys() and "FAIL" not in "".join(lines)
    assert len(lines["float32"].get_ydata()) == len(report["rows"]) - 2
    labels = [label.get_text() for label in axes.get_xticklabels()]
    halves = [(half, range(1, 7)) for half in ("encoder", "decoder")]
    names = [[f"{h} embedding", *(f"{h} {n}" for n in numbers)] for h, numbers in halves]
    assert labels == [*names[0], *names[1], "logits"]


def test_zero_is_at_the_bottom_nan_at_the_top_and_what_is_missing_is_a_gap():
    report = report_of(1)
    for row, error in zip(report["rows"], (0.0, "nan", math.inf, None), strict=False):
        row["errors"]["float64"] = error
    axes, lines = drawn(report)
    bottom, top = axes.get_ylim()
    heights = list(lines["float64"].get_ydata())
    assert heights[:3] == [bottom, top, top] and math.isnan(heights[3])
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
    rows = [{"part": "logits", "float64": 2e-15, "bound": 1e-11}]
    assert errors(rows[0]) == {"float64": 2e-15}
    assert scale_of(rows, {}) == Scale(pytest.approx(1e-16), pytest.approx(1e-10))


@pytest.mark.parametrize("layers", [1, 24])
def test_few_or_many_layers(layers):
    axes, _ = drawn(report_of(layers))
    assert 5 <= len(axes.get_xticks()) <= 31


def test_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="no sub-step and no logits"):
        plot({"rows": [{"part": "loss", "errors": {}}]}, tmp_path / "parity.png")
    with pytest.raises(UserError, match="cannot write"):
        plot(report_of(1), tmp_path / "none" / "parity.png")
