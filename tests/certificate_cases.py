"""A certified folder, reports about it, and the command that verifies it."""

import json
import os

import pytest

from parity.certificate import own_sha256, write_certificate
from parity.verify_command import main


def row(part, difference=1e-15, bound=1e-11):
    passed = difference <= bound
    return {"part": part, "float64": difference, "bound": bound, "passed": passed}


def report_of(a="a", *, difference=1e-15):
    step = "encoder.enc_layers.1.ffn.fc2 input"
    rows = [row("encoder.embed", 0.0), row(step, 7e-13), row("decoder.finalFc", difference)]
    rows += [row("loss", 2e-16, 1e-10), row("gradient of decoder.finalFc.weight", 3e-14, 1e-10)]
    measured = {"max_abs": 5e-6, "relative": 1e-6, "max_kl": 1e-11, "top1": 1.0, "top5": 0.99}
    return {
        "a": {"given": str(a), "what": "Marian", "framework": "torch", "device": "cpu"},
        "b": {"given": "elsewhere/b", "what": "twinformer", "framework": "jax", "device": "cpu"},
        "settings": {"seed": 7},
        "config": {"hidden_dim": 15},
        "rows": rows,
        "budget": {"float32": {"a": measured, "b": measured, "max_abs": 5e-6}},
        "passed": all(r["passed"] for r in rows),
        "verdict": "same function",
    }


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
    """Change the certificate; an honest edit carries the sha256 of what it now says."""
    path = folder / "certificate.json"
    content = json.loads(path.read_text())
    change(content)
    if honest:
        content["sha256"] = own_sha256(content)
    path.write_text(json.dumps(content))
