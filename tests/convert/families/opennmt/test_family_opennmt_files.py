"""Files of OpenNMT-py: weights apart in safetensors, and vocabularies of version 2."""

from argparse import Namespace

import pytest

torch = pytest.importorskip("torch")

from convert_cases import assert_same_arrays, convert, fail  # noqa: E402
from family_checks import source_of  # noqa: E402
from opennmt_reference import Checkpoint  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from convert.checkpoints import load_weights_of  # noqa: E402
from convert.families.opennmt.family import OpenNMT  # noqa: E402
from transformer_spec import UserError  # noqa: E402


@pytest.fixture
def whole(tmp_path):
    """A checkpoint in one file, converted."""
    torch.save(Checkpoint().saved(), tmp_path / "whole.pt")
    convert(tmp_path / "whole.pt", tmp_path / "whole", "--to", "torch")
    return load_weights_of(tmp_path / "whole")


@pytest.mark.parametrize("shards", [1, 3])
def test_weights_in_safetensors_beside_the_options(whole, shards, tmp_path, capsys):
    checkpoint = Checkpoint()
    rest = {"vocab": checkpoint.vocab(), "opt": Namespace(**checkpoint.opt()), "optim": None}
    split = tmp_path / "split"
    split.mkdir()
    torch.save(rest, split / "model_step_100.pt")
    state = {name: tensor.clone() for name, tensor in checkpoint.state().items()}
    names = list(state)
    for number in range(shards):
        part = {name: state[name] for name in names[number::shards]}
        save_file(part, split / f"model_step_100.{number:02}.safetensors")
    for path in ("model_step_100.pt", "model_step_100.00.safetensors", ""):
        convert(split / path, tmp_path / f"to-{path}", "--to", "torch")
        assert "opennmt names" in capsys.readouterr().out
        config, weights = load_weights_of(tmp_path / f"to-{path}")
        assert config == whole[0]
        assert_same_arrays(weights, whole[1])


def test_a_whole_checkpoint_beside_safetensors_is_read_by_itself(whole, tmp_path):
    torch.save(Checkpoint().saved(), tmp_path / "step_2.pt")
    save_file({"other": torch.ones(1)}, tmp_path / "step_2.00.safetensors")
    convert(tmp_path / "step_2.pt", tmp_path / "ours", "--to", "torch")
    assert_same_arrays(load_weights_of(tmp_path / "ours")[1], whole[1])


def test_weights_without_their_options(tmp_path, capsys):
    state = {name: tensor.clone() for name, tensor in Checkpoint().state().items()}
    save_file(state, tmp_path / "step_1.00.safetensors")
    error = fail(capsys, tmp_path / "step_1.00.safetensors", tmp_path / "x", "--to", "torch")
    assert "its options are missing" in error


@pytest.mark.parametrize("vocab", [{"src": object(), "tgt": object()}, [("src", object())]])
def test_a_vocabulary_of_version_2(vocab):
    """An object of torchtext: its special tokens have the numbers that it always gives them."""
    checkpoint = Checkpoint(generator="generator.0")
    source = source_of(checkpoint.state(), checkpoint.settings() | {"vocab": vocab})
    reading = OpenNMT().read_config(source)
    ids = (reading.config.unk_id, reading.config.pad_id, reading.config.bos_id)
    assert (*ids, reading.config.eos_id, reading.config.decoder_start_id) == (0, 1, 2, 3, 2)
    assert any("<unk> 0, <blank> 1, <s> 2, </s> 3" in note for note in reading.notes)
    other = source_of(checkpoint.state(), source.settings, {"eos_id": 5})
    assert OpenNMT().read_config(other).config.eos_id == 5


def test_no_vocabulary_at_all_is_asked_for():
    checkpoint = Checkpoint()
    source = source_of(checkpoint.state(), checkpoint.opt())
    with pytest.raises(UserError, match="pad_id is not given, and no vocabulary shows it"):
        OpenNMT().read_config(source)
