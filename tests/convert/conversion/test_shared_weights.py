"""Weights that are one in a user's module and several here, or that only began as one: told."""

import re

import pytest

torch = pytest.importorskip("torch")

from convert_cases import convert, fail  # noqa: E402
from torch_nn_cases import CASES, FLAGS, Case, Wrapper  # noqa: E402

import torch_transformer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")
ONCE = "stored once, and so one weight there"
SEVERAL = "one weight there and several here"


class OneTable(Wrapper):
    """One trained table of positions, added to source and target."""

    def __init__(self) -> None:
        super().__init__(Case(positions="none"))
        self.pos_emb = torch.nn.Parameter(torch.randn(1, 20, 15, dtype=torch.float64))


def words(flags) -> list[str]:
    return [w for n, v in flags.items() for w in (f"--{n.replace('_', '-')}", v)]


def notes(capsys, path, destination, *more) -> str:
    torch.manual_seed(0)
    convert(path, destination, "--to", "torch", *words(FLAGS), *more)
    return capsys.readouterr().out


def test_one_layer_in_two_places(tmp_path, capsys):
    module = Case().module()
    torch.save(module.state_dict(), tmp_path / "apart.pt")
    assert ONCE not in notes(capsys, tmp_path / "apart.pt", tmp_path / "apart")
    layers = module.transformer.encoder.layers
    layers[1] = layers[0]
    torch.save(module.state_dict(), tmp_path / "one.pt")
    said = notes(capsys, tmp_path / "one.pt", tmp_path / "one")
    name = "transformer.encoder.layers.{}.self_attn.in_proj_weight"
    assert f"{ONCE}: {name.format(0)} = {name.format(1)}, " in said
    assert re.search(
        r"and 9 more such: several here, the same function until they are trained", said
    )


@pytest.mark.parametrize("stored", ["once", "twice"])
def test_tables_of_the_same_numbers_may_be_two(stored, tmp_path, capsys):
    """A tied weight is saved in one place; one that begins as a copy of another is not."""
    module = CASES["pre gelu"].module()
    flags = dict(zip(("--norm-position", "--activation"), ("pre", "gelu"), strict=True))
    state = module.state_dict()
    if stored == "twice":
        state["generator.weight"] = state["generator.weight"].clone()
    torch.save(state, tmp_path / "m.pt")
    more = [word for pair in flags.items() for word in pair]
    said = notes(capsys, tmp_path / "m.pt", tmp_path / "mine", *more)
    config = torch_transformer.load(tmp_path / "mine").config
    assert config.tied_embeddings == "target_output"
    told = "(generator.weight and tgt_emb.weight hold the same numbers; 'none' trains them apart)"
    assert (f"tied_embeddings 'target_output' {told}" in said) == (stored == "twice"), said
    assert ONCE not in said
    notes(capsys, tmp_path / "m.pt", tmp_path / "two", *more, "--tied-embeddings", "none")
    assert torch_transformer.load(tmp_path / "two").config.tied_embeddings == "none"


def test_one_table_of_positions_for_both_halves(tmp_path, capsys):
    torch.save(OneTable().double().state_dict(), tmp_path / "m.pt")
    maps = [
        w for half in ("encoder", "decoder") for w in ("--map", f"{half}.pos_embedding=pos_emb")
    ]
    kinds = ("encoder_positions", "decoder_positions", "max_length")
    flags = words({n: v for n, v in FLAGS.items() if n not in kinds}) + maps
    convert(tmp_path / "m.pt", tmp_path / "in", "--to", "torch", *flags)
    both = "encoder.pos_embedding.weight and decoder.pos_embedding.weight"
    assert f"{SEVERAL}: pos_emb ({both})" in capsys.readouterr().out
    model = torch_transformer.load(tmp_path / "in")
    with torch.no_grad():
        model.encoder.pos_embedding.weight[3] += 1
    torch_transformer.save(model, tmp_path / "trained", like=tmp_path / "in")
    message = fail(capsys, tmp_path / "trained", tmp_path / "back", "--to", "torch-nn")
    assert f"{both.replace(' and ', ', ')}: arrays that should be one (tied) differ" in message
    assert "import with --encoder-positions frozen --decoder-positions frozen before" in message
    assert not (tmp_path / "back").exists()
