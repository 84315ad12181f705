"""python -m convert on the files of each family as its own tools write them, found out unasked."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from convert_cases import assert_same_arrays, convert, fail
from fairseq_cases import m2m100, settings_of, state_of
from family_checks import import_source, source_of
from marian_cases import CASES, TOP
from marian_folders import CONFIG, marian_weights, write_marian
from messages import says
from opennmt_reference import Checkpoint
from torch_nn_cases import FLAGS, NAMES, Case, moved

from convert.checkpoints import load_weights_of
from convert.core.rules import ASIDE
from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.fairseq.family import Fairseq
from convert.families.marian_npz.family import MarianNpz
from convert.families.opennmt.family import OpenNMT
from convert.formats.safetensors import write_safetensors
from transformer_spec import TransformerConfig, initial_weights

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]


def assert_converted(path, folder, family, source: Source, *flags: str) -> None:
    """The command finds the family and writes what the family makes of the source in memory."""
    convert(path, folder, "--to", "torch", *flags)
    config, weights = load_weights_of(folder)
    expected_config, expected = import_source(family, source)
    assert config == expected_config
    ours = {name: array for name, array in expected.items() if not name.startswith(ASIDE)}
    assert_same_arrays(dict(sorted(weights.items())), dict(sorted(ours.items())))


def test_opennmt(tmp_path):
    checkpoint = Checkpoint()
    torch.save(checkpoint.saved(), tmp_path / "step_1000.pt")
    source = source_of(checkpoint.state(), checkpoint.settings())
    assert_converted(tmp_path / "step_1000.pt", tmp_path / "torch", OpenNMT(), source)


@pytest.mark.parametrize("form", ["args", "cfg"])
def test_fairseq(tmp_path, form):
    model = m2m100()
    state, settings = state_of(model, True), settings_of(model)
    told = {"args": Namespace(**settings)} if form == "args" else {"cfg": {"model": settings}}
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save({"model": tensors, "epoch": 3, **told}, tmp_path / "checkpoint_best.pt")
    source = source_of(state, settings)
    assert_converted(tmp_path / "checkpoint_best.pt", tmp_path / "torch", Fairseq(), source)


def test_marian_npz(tmp_path):
    case = next(iter(CASES.values()))
    np.savez(tmp_path / "model.npz", **case.arrays())
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TOP.items()]
    source = source_of(case.arrays(), flags=TOP)
    assert_converted(tmp_path / "model.npz", tmp_path / "torch", MarianNpz(), source, *flags)


def test_flax_msgpack_there_and_back(tmp_path):
    """PyTorch folder -> flax_model.msgpack -> PyTorch folder, and into a twin from either."""
    arrays = marian_weights()
    write_marian(tmp_path / "pt", arrays)
    convert(tmp_path / "pt", tmp_path / "flax", "--to", "marian-flax")
    assert (tmp_path / "flax" / "flax_model.msgpack").exists()
    convert(tmp_path / "flax", tmp_path / "one", "--to", "torch")
    convert(tmp_path / "pt", tmp_path / "other", "--to", "torch")
    one, other = load_weights_of(tmp_path / "one"), load_weights_of(tmp_path / "other")
    assert one[0] == other[0] and one[0].hidden_dim == CONFIG.hidden_dim
    assert_same_arrays(one[1], other[1])


def test_what_two_families_could_be_is_asked(tmp_path, capsys):
    """A Hugging Face state without its config.json says too little about itself."""
    state = {name: torch.from_numpy(array) for name, array in marian_weights().items()}
    torch.save(state, tmp_path / "bare.pt")
    error = fail(capsys, tmp_path / "bare.pt", tmp_path / "x", "--to", "torch")
    assert "names of no known family" in error and "say which with --from" in error


class TestMapOfTheTarget:
    """A model of ours into a torch.nn.Transformer under the names that the user's module has."""

    CONFIG = TransformerConfig(
        source_vocab_size=11, target_vocab_size=13, hidden_dim=15, inner_dim=7, num_heads=3,
        num_encoder_layers=3, num_decoder_layers=2, max_length=20, pad_id=0, unk_id=0,
        final_norm=True,
    )  # fmt: skip

    @pytest.fixture
    def run(self, tmp_path):
        (tmp_path / "ours").mkdir()
        weights = initial_weights(self.CONFIG, 1, np.float64)
        write_safetensors(tmp_path / "ours/model.safetensors", Held(weights))
        self.CONFIG.save(tmp_path / "ours/config.json")
        return tmp_path / "ours"

    def test_names_and_the_way_back(self, run, tmp_path):
        names = [f"--map={ours}={theirs}" for ours, theirs in NAMES.items()]
        convert(run, tmp_path / "theirs", "--to", "torch-nn", *names)
        state = torch.load(tmp_path / "theirs/model.pt", weights_only=True)
        assert set(state) == set(moved(Case().module().state_dict()))
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in FLAGS.items()]
        convert(tmp_path / "theirs", tmp_path / "back", "--to", "torch", *names, *flags)
        assert_same_arrays(load_weights_of(run)[1], load_weights_of(tmp_path / "back")[1])

    def test_what_cannot_be_meant_is_named_at_once(self, run, tmp_path, capsys):
        error = fail(capsys, run, tmp_path / "theirs", "--to", "torch-nn", "--map=decoder.head=h",
                     "--map=encoder.embedding=w", "--map=decoder.embedding=w")  # fmt: skip
        says(error, "3 faults")
        says(error, "decoder.head", "no module")
        assert "encoder.embedding=w: decoder.embedding is there too" in error

    def test_where_names_are_the_family_s_own(self, run, tmp_path, capsys):
        error = fail(capsys, run, tmp_path / "theirs", "--to", "flax", "--map=encoder.embedding=w")
        says(error, "torch", "flax", "names of their own")
