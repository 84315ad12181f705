"""The command's own certificate, from the comparison to its verification."""

import json
from dataclasses import replace

import pytest
from messages import says

pytest.importorskip("torch")
pytest.importorskip("jax")

from parity_cases import TINY, flax_side, random_weights, torch_side, write  # noqa: E402

from parity.__main__ import main  # noqa: E402
from parity.comparison.comparison import compare_sides  # noqa: E402
from parity.comparison.memory import needs  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.forward.ids import generated  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
SMALL = replace(TINY, num_decoder_layers=1)


def test_from_comparison_to_verification(tmp_path, monkeypatch, capsys):
    a, b = (write(tmp_path / name, SMALL, random_weights(SMALL)) for name in ("a", "b b"))
    picture = tmp_path / "parity.png"
    flags = ["--certificate", "--card", "--plot", str(picture), "--length", "5", "--precision"]
    assert main([str(a), str(b), *flags]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and (b / "PARITY.md").is_file()
    said = capsys.readouterr().out
    for line in (f"picture: {picture}", f"certificate: {b / 'certificate.json'}", "card: "):
        assert line in said
    held = json.loads((b / "certificate.json").read_text())
    rows = held["report"]["rows"]
    assert sorted(held["a_files"]) == ["config.json", "model.safetensors"]
    (b / "parity.html").write_text("a page is no part of what is certified")
    assert main(["verify", str(b)]) == 0
    said = capsys.readouterr().out
    says(said, "PASS", f"all {len(rows)} rows", "same function")
    says(said, "all 2 files of A", "as certified")
    monkeypatch.setattr("parity.comparison.memory.resident", lambda: 0)
    found = needs(torch_side(SMALL), torch_side(SMALL), generated(SMALL, 5))
    less = str((found.whole + found.with_gradients) // 2)
    assert main(["verify", str(b), "--max-ram", less]) == 3
    said = capsys.readouterr().out
    assert "gradients are not compared" in said and "FAIL" not in said
    assert sum("not enough memory" in line for line in said.splitlines()) == sum(
        row["part"] == "loss" or row["part"].startswith("gradient") for row in rows
    )


def test_gradients_that_memory_left_out_are_not_asked_for_again(monkeypatch):
    monkeypatch.setattr("parity.comparison.memory.resident", lambda: 0)
    sides = torch_side(SMALL), flax_side(SMALL)
    found = needs(*sides, generated(SMALL, 5))
    less = (found.whole + found.with_gradients) // 2
    report = compare_sides(*sides, Settings((), longest=5, max_ram=less))
    assert report.settings.gradients is False and "gradients are not" in report.notes[0]
