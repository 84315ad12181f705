"""Checkpoints that are not as a table says: every fault in one message, nothing half-written."""

import re
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

import published  # noqa: E402
from family_checks import export_source, import_source, source_of  # noqa: E402

from convert import ConversionRequest, convert  # noqa: E402
from convert.families.base import announced  # noqa: E402
from convert.families.registry import FAMILIES, recognize  # noqa: E402
from convert.naming.family import NamedFamily  # noqa: E402
from convert.naming.parsing import parse_table  # noqa: E402
from parity.twins.cases import config_of  # noqa: E402
from transformer_spec import UserError  # noqa: E402

TOLD = {"num_heads": published.H, "pad_id": published.PAD}
LAST = "decoder.layers.1."


@pytest.fixture(scope="module")
def hyunwoongko() -> dict:
    return published.made(published.Hyunwoongko).float().state_dict()


def moved(state: dict, old: str, new: str) -> dict:
    return {re.sub(f"^{re.escape(old)}", new, name): array for name, array in state.items()}


def without(state: dict, *names: str) -> dict:
    return {name: array for name, array in state.items() if name not in names}


def faults_of(name: str, state: dict, **flags) -> str:
    source = source_of(state, flags=TOLD | {"max_length": published.MOST} | flags)
    with pytest.raises(UserError) as caught:
        import_source(FAMILIES[name], source)
    return str(caught.value)


def test_a_missing_and_an_extra_tensor(hyunwoongko):
    name = "encoder.layers.0.attention.w_k.weight"
    state = without(hyunwoongko, name) | {"encoder.layers.0.attention.w_r.weight": torch.ones(2)}
    told = faults_of("hyunwoongko", state)
    assert f"{name} is missing (encoder.enc_layers.0.multiheadattention.fcK.weight)" in told
    assert "encoder.layers.0.attention.w_r.weight has no place in the table" in told
    with pytest.raises(UserError, match="no known family"):
        recognize(source_of(state))


def test_layers_with_holes(hyunwoongko):
    told = faults_of("hyunwoongko", moved(hyunwoongko, LAST, "decoder.layers.3."))
    assert "the decoder's layers are 0, 3: nothing is there of 1, 2" in told


def test_shapes_that_contradict_each_other(hyunwoongko):
    state = hyunwoongko | {"encoder.layers.0.attention.w_q.weight": torch.ones(12, 13)}
    told = faults_of("hyunwoongko", state)
    assert "hidden_dim is 12 by" in told
    assert "13 by encoder.layers.0.attention.w_q.weight" in told


def test_a_shape_that_fits_no_reading(hyunwoongko):
    state = hyunwoongko | {"encoder.layers.0.norm1.gamma": torch.ones(12, 1)}
    told = faults_of("hyunwoongko", state)
    assert "encoder.layers.0.norm1.gamma: shape [12, 1] has not the axes (width)" in told


def test_biases_of_some_only(hyunwoongko):
    told = faults_of("hyunwoongko", without(hyunwoongko, f"{LAST}self_attention.w_q.bias"))
    assert re.search(r"attention_bias: 14 of 15 have a bias; \S+ has one, \S+w_q.weight has", told)


def test_all_of_them_at_once(hyunwoongko, tmp_path):
    """Many of a kind are a line with their number, and no folder is begun."""
    state = moved(hyunwoongko, "encoder.layers.0.norm", "encoder.layers.0.ln")
    state = moved(state, LAST, "decoder.layers.3.")
    state = without(state, "decoder.linear.weight") | {
        f"decoder.head.{i}": torch.ones(1) for i in range(5)
    }
    state["encoder.emb.tok_emb.weight"] = torch.ones(23, 12, 1)
    torch.save(state, tmp_path / "model.pt")
    request = ConversionRequest(
        tmp_path / "model.pt", tmp_path / "new", to="torch", family="hyunwoongko",
        fields={"activation": "gelu"},
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        convert(request)
    message = str(caught.value)
    for told in (
        "and 6 more have no place in the table", "nothing is there of 1, 2",
        "encoder.layers.0.norm1.gamma is missing", "decoder.linear.weight is missing",
        "encoder.emb.tok_emb.weight: shape [23, 12, 1]", "num_heads is not told",
        "pad_id is not told", "max_length is not told",
    ):  # fmt: skip
        assert told in message, told
    assert message.count(" faults\n") == 1 and not (tmp_path / "new").exists()


def test_heads_that_do_not_divide(hyunwoongko):
    assert "num_heads 5 does not divide 12" in faults_of("hyunwoongko", hyunwoongko, num_heads=5)


def test_what_a_flag_says_and_tensors_show_otherwise(hyunwoongko):
    told = faults_of("hyunwoongko", hyunwoongko, inner_dim=21, ffn_bias=False)
    assert "inner_dim is given as 21; the tensors show 20" in told
    assert "ffn_bias is given as False; the tensors show True" in told


def test_values_of_another_width_than_keys():
    state = published.made(published.Jadore).state_dict()
    for name in [name for name in state if name.endswith(("w_vs.weight", "attn.fc.weight"))]:
        axis = 0 if "w_vs" in name else 1
        state[name] = torch.cat([state[name], state[name]], axis)
    told = faults_of("jadore801120", state)
    assert re.search(r"the width of all heads \(.*\) is \d+ by .* and \d+ by .*w_vs", told)


def test_a_tie_that_does_not_hold():
    """The module ties tables unless it is told otherwise; here they have other numbers."""
    state = published.made(published.JadoreScaledEmbeddings).state_dict()
    state["trg_word_prj.weight"] = state["trg_word_prj.weight"] + 1
    told = faults_of("jadore801120", state)
    assert "decoder.trg_word_emb.weight" in told and "differ" in told


def test_sinusoids_that_are_others():
    state = published.made(published.Annotated).state_dict()
    state["src_embed.1.pe"] = published.made(published.SamLynnEvans).encoder.pe.pe
    told = faults_of("annotated-transformer", state)
    assert "src_embed.1.pe" in told and "--encoder-positions frozen" in told
    flags = TOLD | {f"{half}_positions": "frozen" for half in ("encoder", "decoder")}
    config, canonical = import_source(
        FAMILIES["annotated-transformer"], source_of(state, flags=flags)
    )
    assert config.encoder_positions == "frozen"
    assert (canonical["encoder.pos_embedding.weight"] == state["src_embed.1.pe"][0].numpy()).all()


def test_a_name_with_two_places():
    text = """
    name = "twice"
    [names]
    "a.{i}.b" = "encoder.enc_layers.{i}.layerNorm1"
    "a.0.b" = "encoder.final_norm"
    """
    state = {"a.0.b.weight": torch.ones(4), "a.0.b.bias": torch.ones(4)}
    with pytest.raises(UserError, match=r"a\.0\.b\.weight has two places in the table"):
        NamedFamily(parse_table(text, "twice.toml")).read_config(source_of(state))


def test_models_that_a_module_cannot_hold():
    """Settings that it has otherwise, and weights that have no name there, all at once."""
    family = FAMILIES["hkproj"]
    state = published.made(published.Hkproj).state_dict()
    config, _ = import_source(family, source_of(state, flags=TOLD))
    other = replace(config, norm="layer", activation="gelu", gated_ffn=True, embedding_norm=True)
    with pytest.raises(UserError) as caught:
        family.write_settings(other, None)
    message = str(caught.value)
    for told in (
        "norm is 'layer'; hkproj has 'std' only", "activation is 'gelu'; hkproj has 'relu' only",
        "encoder.enc_layers.{i}.ffn.fc3.weight has no name there",
        "decoder.embedding_norm.weight has no name there",
    ):  # fmt: skip
        assert told in message, told


def test_norms_that_one_number_cannot_hold():
    """A module of the first version takes norms of equal numbers alone."""
    family, state = FAMILIES["hkproj"], published.made(published.HkprojAtFirst).state_dict()
    source = source_of(state, flags=TOLD)
    config, canonical = import_source(family, source)
    canonical["encoder.final_norm.weight"][1] += 1
    with pytest.raises(UserError, match="features have numbers of their own"):
        export_source(family, config, canonical, source)


def test_of_shared_tables_the_output_alone_is_there():
    """As safetensors keeps one of several names: the same weights as with all of them."""
    whole = published.made(published.Jadore).float().state_dict()
    tables = "encoder.src_word_emb.weight", "decoder.trg_word_emb.weight"
    assert {*tables} <= {*whole}
    family = FAMILIES["jadore801120"]
    one, other = (
        import_source(family, source_of(state, flags=TOLD))
        for state in (whole, without(whole, *tables))
    )
    assert one[0] == other[0]
    assert all((one[1][name] == other[1][name]).all() for name in one[1])


def test_weights_that_the_config_has_not():
    state = published.made(published.Annotated).float().state_dict()
    told = faults_of("annotated-transformer", state, norm="rms")
    assert "has more than its config says: " in told
    assert "norm.b_2 is encoder.enc_layers.0.layerNorm1.bias, which a model of this config" in told


def test_no_heads_at_all(hyunwoongko):
    assert "num_heads is 0; give a number" in faults_of("hyunwoongko", hyunwoongko, num_heads=0)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (published.HkprojAtFirst, "norm.alpha is one number for all features"),
        (published.AladdinpersonAtFirst, "queries.weight is one block for all heads"),
    ],
)
def test_moments_of_what_is_one_there_and_several_here(kind, what, tmp_path):
    module = published.made(kind).float()
    optimizer = torch.optim.Adam(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(saved, tmp_path / "trained.pt")
    request = ConversionRequest(
        tmp_path / "trained.pt", tmp_path / "ours", to="torch", fields=TOLD | kind.flags
    )
    with pytest.raises(UserError, match="moments are of other weights") as caught:
        convert(request)
    assert what in str(caught.value) and "--no-optimizer" in str(caught.value)
    assert not (tmp_path / "ours").exists()
    assert convert(replace(request, optimizer=False)).optimizer is None


TIED = """
name = "mine"
[names]
"embed.weight" = "decoder.embedding.weight"
"head.weight" = {{ to = "decoder.finalFc.weight", layout = "{layout}" }}
"""


def test_tied_tables_that_lie_differently():
    """A square matrix and its transpose can have the same bytes."""
    shapes = {"embed.weight": (19, 12), "head.weight": (12, 19)}
    config = config_of({"tied_embeddings": "target_output"})
    same, other = (
        NamedFamily(parse_table(TIED.format(layout=layout), "mine.toml"))
        for layout in ("(out, in)", "(in, out)")
    )
    with pytest.raises(UserError, match="head.weight as .in, out.: they are one table"):
        other.rules(config, announced(shapes))
    tied = next(r for r in same.rules(config, announced(shapes)) if len(r.sources) == 2)
    assert tied.operation.compares
