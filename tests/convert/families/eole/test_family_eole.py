"""eole: the same logits in both twins as its model computes, and what is refused."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from convert_cases import convert, fail  # noqa: E402
from eole_cases import config_of, state_of, vocab_of, write  # noqa: E402
from family_checks import (  # noqa: E402
    assert_round_trip,
    assert_same_logits,
    batch,
    import_source,
    source_of,
)
from opennmt_reference import Checkpoint, Reference  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from convert.conversion.opening import open_model  # noqa: E402
from convert.families.base import Source  # noqa: E402
from convert.families.eole.family import Eole  # noqa: E402
from convert.families.registry import recognize  # noqa: E402
from parity.sides.opening import open_side  # noqa: E402
from transformer_spec import TransformerConfig, UserError  # noqa: E402

FAMILY = Eole()
SHARD = "model.00.safetensors"
pytestmark = pytest.mark.usefixtures("float64")
TIED = {"share_embeddings": True, "share_decoder_embeddings": True}
CHECKPOINTS = {
    "as trained by default": Checkpoint(options={"norm_eps": 1e-5}),
    "all tied, attention biases": Checkpoint(
        qkv_bias=True, source_words=19, options=TIED | {"pos_ffn_activation_fn": "gelu"}
    ),
    "output tied, one half after the other": Checkpoint(
        ffn_bias=False,
        options={"share_decoder_embeddings": True, "position_encoding_type": "SinusoidalConcat"},
    ),
    "inputs tied": Checkpoint(source_words=19, options={"share_embeddings": True}),
    "no positions": Checkpoint(qkv_bias=True, options={"position_encoding": False}),
}


def given(checkpoint: Checkpoint, **model) -> Source:
    """A folder of eole as a source; ``model`` changes its settings."""
    config = deepcopy(config_of(checkpoint))
    config["model"] |= model
    flags = {} if checkpoint.opt()["position_encoding"] else {"max_length": 30}
    return source_of(state_of(checkpoint), config | {"vocab": vocab_of(checkpoint)}, flags)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_same_logits_and_back(name):
    checkpoint = CHECKPOINTS[name]
    source = given(checkpoint)
    assert recognize(source).name == "eole"
    config, canonical = import_source(FAMILY, source)
    assert (config.tied_embeddings == "source_target") == (name == "inputs tied")
    ids = batch(config)
    expected = Reference(checkpoint).logits(*map(torch.from_numpy, ids)).numpy()
    assert_same_logits(FAMILY, config, canonical, *ids, expected)
    assert_round_trip(FAMILY, source)


def test_settings():
    reading = FAMILY.read_config(given(Checkpoint()))
    config = reading.config
    assert (config.unk_id, config.pad_id, config.bos_id, config.eos_id) == (0, 1, 2, 3)
    assert (config.dropout, config.attention_dropout) == (0.1, 0.2)
    assert (config.num_encoder_layers, config.num_decoder_layers) == (3, 2)
    assert "eole gives the source no end token" in reading.notes[0]
    assert not any("OpenNMT" in note for note in reading.notes)


@pytest.mark.parametrize("theirs, ours", [("silu", "silu"), ("gelu-tanh", "gelu_tanh")])
def test_activations(theirs, ours):
    config = FAMILY.read_config(given(Checkpoint(), mlp_activation_fn=theirs)).config
    assert config.activation == ours


@pytest.mark.parametrize(
    ("version", "noted"), [("0.1.2", True), (None, True), ("0.2.0", False), ("0.10.1", False)]
)
def test_an_epsilon_that_is_not_said(version, noted):
    """eole writes what was set alone, and 1e-06 was usual before 0.2."""
    source = given(Checkpoint(), norm_eps=None, eole_version=version)
    model = source.settings["model"]
    for name in [name for name, value in model.items() if value is None]:
        del model[name]
    reading = FAMILY.read_config(source)
    assert reading.config.norm_epsilon == 1e-5
    assert any("norm_eps is not said" in note for note in reading.notes) == noted


def test_a_half_s_own_setting_counts_before_the_model_s():
    encoder = {"encoder_type": "transformer", "layers": 3, "heads": 3}
    decoder = {"decoder_type": "transformer", "layers": 2, "heads": 3}
    source = given(Checkpoint(), heads=9, layers=6, encoder=encoder, decoder=decoder)
    assert FAMILY.read_config(source).config.num_heads == 3


def test_every_fault_at_once():
    wrong = {
        "architecture": "rnn",
        "mlp_activation_fn": "gated-silu",
        "layer_norm": "rms",
        "heads_kv": 1,
        "num_experts": 4,
        "parallel_residual": True,
        "add_estimator": True,
        "a_new_setting": 1,
        "norm_eps": "small",
    }
    with pytest.raises(UserError) as error:
        FAMILY.read_config(given(Checkpoint(), **wrong))
    assert all(name in str(error.value) for name in wrong)
    kinds = {"position_encoding_type": "Rotary"}
    with pytest.raises(UserError, match="position_encoding_type is 'Rotary'"):
        FAMILY.read_config(given(Checkpoint(), embeddings=kinds))
    source = given(Checkpoint(), a_new_setting=1)
    config = FAMILY.read_config(replace(source, ignored=["a_new_setting"]))
    assert "a_new_setting is ignored" in "".join(config.notes)


def test_halves_that_differ():
    encoder = {"encoder_type": "transformer", "layers": 3, "norm_eps": 1e-3}
    with pytest.raises(UserError, match="norm_eps is 0.001 in the encoder and 1e-06 in the"):
        FAMILY.read_config(given(Checkpoint(), encoder=encoder))


def test_a_factor_that_is_not_one():
    source = given(Checkpoint())
    arrays = source.tensors.read_all()
    arrays["decoder.transformer_layers.1.layer_scalar"] = np.full(1, 0.5, np.float32)
    with pytest.raises(UserError, match="multiplies a layer's output, and it is not 1"):
        import_source(FAMILY, source_of(arrays, source.settings))


def test_a_factor_that_is_not_one_in_a_folder_that_is_used_as_it_is(tmp_path, capsys):
    """Nothing is written, and so nothing else reads it."""
    checkpoint = Checkpoint()
    folder = write(tmp_path / "eole", checkpoint)
    name = "decoder.transformer_layers.1.layer_scalar"
    save_file(state_of(checkpoint) | {name: torch.full((1,), 0.5)}, folder / SHARD)
    for used in (lambda: open_model(folder).tensors(), lambda: open_side(str(folder))):
        with pytest.raises(UserError, match=f"{name}: it multiplies a layer's output"):
            used()
    assert f"{name}: it multiplies" in fail(capsys, folder, tmp_path / "b", "--to", "torch")


def test_missing_tensors_have_their_own_names():
    source = given(Checkpoint())
    arrays = source.tensors.read_all()
    gone = [
        "decoder.transformer_layers.1.mlp.down_proj.weight",
        "decoder.transformer_layers.0.precontext_layernorm.bias",
        "encoder.transformer_layers.2.self_attn.linear_keys.weight",
        "encoder.transformer_layers.0.input_layernorm.weight",
        "tgt_emb.pe.pe",
    ]
    for name in gone:
        del arrays[name]
    with pytest.raises(UserError) as error:
        import_source(FAMILY, source_of(arrays, source.settings))
    assert all(f"missing '{name}'" in str(error.value) for name in gone[:-1])


class TestFolders:
    def test_a_folder_and_the_file_in_it(self, tmp_path, capsys):
        folder = write(tmp_path / "step_5000", Checkpoint())
        for number, path in enumerate((folder, folder / "model.00.safetensors")):
            convert(path, tmp_path / f"ours{number}", "--to", "flax")
            assert "eole names" in capsys.readouterr().out
            config = TransformerConfig.load(tmp_path / f"ours{number}/config.json")
            assert config == FAMILY.read_config(given(Checkpoint())).config

    def test_without_its_weights(self, tmp_path, capsys):
        folder = write(tmp_path / "step_5000", Checkpoint())
        (folder / "model.00.safetensors").unlink()
        error = fail(capsys, folder, tmp_path / "ours", "--to", "flax")
        assert "has a config.json of eole and no model.00.safetensors" in error

    def test_without_its_vocabulary(self, tmp_path, capsys):
        folder = write(tmp_path / "step_5000", Checkpoint())
        (folder / "vocab.json").unlink()
        error = fail(capsys, folder, tmp_path / "ours", "--to", "flax")
        assert "pad_id is not given, and no vocabulary shows it" in error
