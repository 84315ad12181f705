"""torch.nn.Transformer in a user's module: the same logits in both twins, and the way back."""

from dataclasses import replace

import numpy as np
import pytest
from messages import says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from family_checks import import_source, source_of  # noqa: E402
from torch_nn_cases import (  # noqa: E402
    CASES,
    FAMILY,
    FLAGS,
    NAMES,
    Case,
    assert_imports,
    given,
    moved,
    without,
)

from convert import ConversionRequest, convert  # noqa: E402
from convert.formats.safetensors import open_safetensors  # noqa: E402
from transformer_spec import UserError  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_same_logits_and_bytes_there_and_back(case):
    module, source = given(case)
    assert FAMILY.recognizes(source)
    config = assert_imports(module, source)
    assert config.num_encoder_layers == 3 and config.num_decoder_layers == 2
    assert config.final_norm == case.final_norm and config.attention_bias == case.bias
    assert config.tied_embeddings == {"embeddings": "source_target"}.get(case.tied, case.tied)


def test_a_tied_weight_that_is_stored_once():
    """Safetensors files have it once; the flag may say so, and must not say otherwise."""
    module, _ = given(replace(CASES["pre gelu"], output_bias=False))
    once = without(module.state_dict(), "generator.weight")
    flags = module.case.flags()
    config = assert_imports(module, source_of(once, flags=flags))
    assert config.tied_embeddings == "target_output"
    for tied in ("none", "source_target"):
        with pytest.raises(UserError, match=f"'{tied}'; no weight of decoder.finalFc is stored"):
            FAMILY.read_config(source_of(once, flags=flags | {"tied_embeddings": tied}))


def test_a_tie_that_is_told_and_does_not_hold_is_refused():
    _, source = given(Case(), flags=FLAGS | {"tied_embeddings": "target_output"})
    with pytest.raises(UserError, match=r"tgt_emb.weight, generator.weight: .*tied.* differ"):
        import_source(FAMILY, source)


def test_equal_tables_may_be_told_to_be_two():
    module, source = given(CASES["pre gelu"])
    flags = module.case.flags() | {"tied_embeddings": "none"}
    assert assert_imports(module, replace(source, flags=flags)).tied_embeddings == "none"


def test_separate_projections_where_the_module_has_them():
    """PyTorch has q_proj_weight and its like in place of rows where kdim or vdim is given."""
    module, source = given(Case())
    state = module.state_dict()
    for name in [n for n in state if "multihead_attn.in_proj_weight" in n]:
        rows = state.pop(name).split(15)
        for letter, part in zip("qkv", rows, strict=True):
            state[name.replace("in_proj_weight", f"{letter}_proj_weight")] = part
    assert_imports(module, source_of(state, flags=FLAGS))


@pytest.mark.parametrize("axis", [0, 1])
def test_positions_as_a_bare_parameter(axis):
    module, source = given(CASES["learned"])
    state = module.state_dict()
    state["place.a"] = state.pop("src_pos.weight").unsqueeze(axis)
    state["place.b"] = state.pop("tgt_pos.weight")
    wrapper = {"encoder.pos_embedding": "place.a", "decoder.pos_embedding": "place.b"}
    config = assert_imports(module, replace(source_of(state), flags=source.flags, wrapper=wrapper))
    assert config.max_length == 20 and config.encoder_positions == "learned"


def test_one_table_of_positions_and_one_of_words_for_both_halves():
    module, source = given(replace(CASES["learned"], tied="embeddings"))
    module.tgt_pos = module.src_pos
    state = without(module.state_dict(), "tgt_pos.weight", "tgt_emb.weight")
    wrapper = {"decoder.embedding": "src_emb", "decoder.pos_embedding": "src_pos"}
    shared = replace(source_of(state), flags=source.flags, wrapper=wrapper)
    assert assert_imports(module, shared).tied_embeddings == "source_target"
    assert "serves both halves" not in " ".join(FAMILY.read_config(shared).notes)
    apart = replace(shared, flags=source.flags | {"tied_embeddings": "none"})
    assert assert_imports(module, apart).tied_embeddings == "none"
    assert "serves both halves" in " ".join(FAMILY.read_config(apart).notes)


def converted(module, folder, **fields) -> dict:
    """A file of a module and its optimizer after a step as our folder; the optimizer's state."""
    module.float()
    optimizer = torch.optim.AdamW(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    saved = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, folder / "trained.pt")
    fields = {"fields": module.case.flags(), "family": "torch-nn", **fields}
    convert(ConversionRequest(folder / "trained.pt", folder / "ours", to="torch", **fields))
    return optimizer.state_dict()


@pytest.mark.parametrize("tied", ["embeddings", "all", "target_output"])
def test_moments_of_a_table_that_is_one_here_too(tied, tmp_path):
    """The optimizer has it once, and the way back too."""
    module = Case(tied=tied).module()
    state = converted(module, tmp_path)
    moments = open_safetensors(tmp_path / "ours" / "optimizer.safetensors")
    table = "encoder.embedding.weight" if tied != "target_output" else "decoder.embedding.weight"
    expected = state["state"][0 if tied != "target_output" else 1]["exp_avg"].numpy()
    np.testing.assert_array_equal(moments.read(f"exp_avg/{table}"), expected)
    convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="torch-nn"))
    back = torch.load(tmp_path / "back" / "optimizer.pt")
    assert back["state"].keys() == state["state"].keys()
    assert all((back["state"][i]["exp_avg"] == x["exp_avg"]).all() for i, x in
               state["state"].items())  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["learned", "frozen"])
def test_a_buffer_of_positions_is_frozen_where_that_is_told(kind, axis, tmp_path):
    """The optimizer has no buffer: its state is of the model in which the table is frozen."""
    module = Case(positions="none").module()
    table = torch.rand(20, 15)
    module.register_buffer("pe", table.unsqueeze(axis))
    module.case = replace(module.case, positions=kind)
    places = {"encoder.pos_embedding": "pe", "decoder.pos_embedding": "pe"}
    state = converted(module, tmp_path, map=places)
    weights = open_safetensors(tmp_path / "ours" / "model.safetensors")
    for half in ("encoder", "decoder"):
        np.testing.assert_array_equal(weights.read(f"{half}.pos_embedding.weight"), table.numpy())
    optimizer = tmp_path / "ours" / "optimizer.safetensors"
    assert optimizer.exists() == (kind == "frozen")
    if kind == "frozen":
        first = open_safetensors(optimizer).read("exp_avg/encoder.embedding.weight")
        np.testing.assert_array_equal(first, state["state"][0]["exp_avg"].numpy())
        assert not [name for name in open_safetensors(optimizer) if "pos_embedding" in name]
        convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="torch-nn"))
        back = torch.load(tmp_path / "back" / "model.pt")
        assert back.keys() == module.state_dict().keys()
        assert all(torch.equal(back[n], x) for n, x in module.state_dict().items())
        moments = torch.load(tmp_path / "back" / "optimizer.pt")["state"]
        assert len(moments) == len(state["state"])


def test_moments_of_what_is_one_there_and_two_here(tmp_path):
    """Their gradient is a sum over both halves."""
    module = replace(CASES["learned"], embedding_norm=False).module()
    module.tgt_pos = module.src_pos
    state = module.state_dict()
    module.state_dict = lambda: without(state, "tgt_pos.weight")
    with pytest.raises(UserError, match="moments are of other weights") as error:
        converted(module, tmp_path, map={"decoder.pos_embedding": "src_pos"})
    says(str(error.value), "src_pos.weight is duplicated, of which each is trained here")
    assert not (tmp_path / "ours").exists()


def test_modules_by_other_names():
    module, source = given(Case())
    state = moved(module.state_dict())
    assert_imports(module, source_of(state, flags=FLAGS, wrapper=NAMES))
    found = source_of(state, flags=FLAGS, wrapper=without(NAMES, "transformer"))
    assert_imports(module, found)


def test_stacks_that_stand_alone():
    module, source = given(CASES["no final norm"])
    state = {n.replace("transformer.encoder", "reader").replace("transformer.decoder", "writer"): a
             for n, a in module.state_dict().items()}  # fmt: skip
    assert_imports(module, source_of(state, flags=source.flags))
    two = state | {f"old.{n}": a for n, a in state.items() if n.startswith("reader")}
    with pytest.raises(UserError, match=r"2 stacks .*\(old.reader, reader\).*--map transformer="):
        FAMILY.read_config(source_of(two, flags=source.flags))
    wrapper = {"encoder": "reader", "decoder": "writer"}
    assert_imports(module, source_of(state, flags=source.flags, wrapper=wrapper))
