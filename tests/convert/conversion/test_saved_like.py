"""A loaded model saved again, with what lies beside its weights: the way back is whole."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from convert_cases import convert  # noqa: E402
from torch_nn_cases import FLAGS, Case, sinusoids  # noqa: E402

import flax_transformer  # noqa: E402
import torch_transformer  # noqa: E402
from transformer_spec import UserError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")
WORDS = [w for n, v in FLAGS.items() for w in (f"--{n.replace('_', '-')}", v)]
TWINS = pytest.mark.parametrize("twin", [torch_transformer, flax_transformer])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A wrapped module with a buffer of positions, and the folder that it becomes."""
    place = tmp_path_factory.mktemp("saving")
    state = Case().module().float().state_dict() | {
        "positional_encoding.pe": sinusoids(50)[None].float()
    }
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save(wrapped, place / "m.pt")
    convert(place / "m.pt", place / "mine", "--to", "flax", *WORDS)
    return place


@TWINS
def test_a_module_gets_its_names_and_buffers_back(twin, folder, tmp_path):
    model = twin.load(folder / "mine")
    assert twin.save(model, tmp_path / "tuned", like=folder / "mine") == []
    convert(tmp_path / "tuned", tmp_path / "back", "--to", "torch-nn")
    before, after = torch.load(folder / "m.pt"), torch.load(tmp_path / "back" / "model.pt")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    twin.save(model, tmp_path / "bare")
    convert(tmp_path / "bare", tmp_path / "usual", "--to", "torch-nn")
    assert "module.src_emb.weight" not in torch.load(tmp_path / "usual" / "model.pt")


@TWINS
def test_a_folder_of_another_model_and_one_that_is_not_ours(twin, folder, tmp_path):
    model = twin.load(folder / "mine")
    torch.save(Case(tied="target_output").module().float().state_dict(), tmp_path / "other.pt")
    convert(tmp_path / "other.pt", tmp_path / "other", "--to", "torch", *WORDS)
    with pytest.raises(UserError, match="is of another model: decoder.finalFc.* is not the same"):
        twin.save(model, tmp_path / "no", like=tmp_path / "other")
    with pytest.raises(UserError, match="m.pt is no run and no converted folder: python -m conv"):
        twin.save(model, tmp_path / "no", like=folder / "m.pt")
    assert not (tmp_path / "no").exists()
