"""torch.nn.Transformer in a user's module: the same logits in both twins, and the way back."""

from dataclasses import replace

import pytest

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
    assert config.tied_embeddings == {"embeddings": "none"}.get(case.tied, case.tied)


def test_a_tied_weight_that_is_stored_once():
    """Safetensors files have it once; the flag may say so, and must not say otherwise."""
    module, _ = given(replace(CASES["pre gelu"], output_bias=False))
    once = without(module.state_dict(), "generator.weight")
    flags = module.case.flags()
    config = assert_imports(module, source_of(once, flags=flags))
    assert config.tied_embeddings == "target_output"
    with pytest.raises(UserError, match="no weight of decoder.finalFc is stored"):
        FAMILY.read_config(source_of(once, flags=flags | {"tied_embeddings": "none"}))


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
    assert assert_imports(module, shared).tied_embeddings == "none"
    assert "serves both halves" in " ".join(FAMILY.read_config(shared).notes)


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
