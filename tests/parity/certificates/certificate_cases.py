"""A certified folder, reports about it, and the command that verifies it."""

import hashlib
import json
import os
from dataclasses import replace

import pytest
from parity_cases import MEASURED, report_with

from parity.certificates.certificate import write_certificate
from parity.certificates.checksums import read_sums, sums_text
from parity.commands.verify import main
from parity.comparison.report import Rounding, Row


def report_of(a="a", *, difference=1e-15):
    step = "encoder.enc_layers.1.ffn.fc2 input"
    rows = [
        Row("encoder.embed", 0.0, 1e-11), Row(step, 7e-13, 1e-11),
        Row("decoder.finalFc", difference, 1e-11), Row("loss", 2e-16, 1e-10),
        Row("gradient of decoder.finalFc.weight", 3e-14, 1e-10),
    ]  # fmt: skip
    report = report_with(rows, budget={"float32": Rounding(MEASURED, MEASURED, (1e-8, 2e-5))})
    return replace(report, a=replace(report.a, given=str(a)))


def certified(tmp_path):
    """A checkpoint with a certificate, and A beside it."""
    place = tmp_path / "b"
    (place / "orbax" / "d").mkdir(parents=True)
    (place / "model.safetensors").write_bytes(os.urandom(3_000_001))
    (place / "config.json").write_text("{}")
    (place / "orbax" / "d" / ".zarray").write_text("x")
    (place / "best").symlink_to("orbax/d")
    (tmp_path / "a" / "inside").mkdir(parents=True)
    (tmp_path / "a" / "model.safetensors").write_text("numbers")
    (tmp_path / "a" / "inside" / "more").write_text("more")
    write_certificate(place, report_of(tmp_path / "a"))
    return place


def verify(folder, *options, rerun=None):
    return main([str(folder), *options], rerun or (lambda *_: pytest.fail("compared again")))


def edit(folder, change, honest=False):
    """Change the certificate; after an honest edit the list of checksums is right again."""
    path = folder / "certificate.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    if honest:
        sums = read_sums(folder / "SHA256SUMS")
        sums["certificate.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "SHA256SUMS").write_text(sums_text(sums))
