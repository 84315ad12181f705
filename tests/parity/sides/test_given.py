"""Paths of A and B: with spaces, apostrophes and what looks like flags; flags after them."""

import shlex
from dataclasses import replace

import pytest
from messages import says

pytest.importorskip("torch")
pytest.importorskip("jax")

from parity_cases import TINY, failed, random_weights, write  # noqa: E402

from parity.__main__ import main  # noqa: E402
from parity.certificates.verification import given_now  # noqa: E402
from parity.sides.given import local_path, path_and_flags, words  # noqa: E402
from transformer_spec import UserError  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
NAMES = ("with spaces", "it's", "odd --name", 'a "quoted')


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder_is_one(tmp_path, name, capsys):
    folder = write(tmp_path / name, TINY, random_weights(TINY))
    assert path_and_flags(str(folder)) == (str(folder), "")
    assert local_path(str(folder)) == local_path(f"hf:{folder}") == folder
    flags = ["--precision", "--no-gradients", "--length", "4"]
    assert main([str(folder), str(folder), *flags]) == 0
    assert "PASS" in capsys.readouterr().out


def test_flags_after_a_path(tmp_path, capsys):
    folder = write(tmp_path / "it's here", replace(TINY, num_heads=3), random_weights(TINY))
    given = f"{folder / 'model.safetensors'} --config {shlex.quote(str(folder / 'config.json'))}"
    assert local_path(given) == folder / "model.safetensors"
    flags = ["--precision", "--no-gradients", "--length", "4"]
    assert main([given, str(folder), *flags]) == 0
    assert "PASS" in capsys.readouterr().out


def test_flags_that_a_shell_could_not_read(tmp_path, capsys):
    error = failed(capsys, tmp_path, f"{tmp_path}/net.pt --key 'x")
    says(error, "--key 'x", "No closing quotation")
    with pytest.raises(UserError, match="No closing quotation"):
        words(" --key 'x")


def test_flags_that_a_side_does_not_have(tmp_path, capsys):
    error = failed(capsys, f"{tmp_path} --num-head 3", f"{tmp_path} --nope 3")
    says(error, "A", "unrecognized", "--num-head", "did you mean --num-heads?")
    says(error, "B", "unrecognized", "--nope")
    assert "did you mean --precision?" in failed(capsys, tmp_path, tmp_path, "--precison")


def test_a_certificate_of_code_is_refused_at_once(tmp_path, capsys):
    error = failed(capsys, tmp_path, f"module:{tmp_path / 'f.py'}:make", "--card")
    says(error, "--card", "folder of a checkpoint", "B", f"module:{tmp_path}")


def test_side_b_of_a_certificate_keeps_its_flags(tmp_path):
    (tmp_path / "odd --name").mkdir()
    here = tmp_path / "odd --name"
    assert given_now("gone/it's --key 'a b'", here) == f"{here} --key 'a b'"
    assert path_and_flags(f"{here} --key 'a b'") == (str(here), " --key 'a b'")
