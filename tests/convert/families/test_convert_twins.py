"""torch_to_flax and flax_to_torch: one table, both directions, strict with a config."""

import dataclasses
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from messages import says

from convert import flax_to_torch, torch_to_flax
from transformer_spec import TransformerConfig, UserError, initial_weights

CONFIG = TransformerConfig(
    source_vocab_size=11, target_vocab_size=13, hidden_dim=6, inner_dim=7, num_heads=2,
    num_encoder_layers=2, num_decoder_layers=1, max_length=5,
)  # fmt: skip
FULL = dataclasses.replace(
    CONFIG, norm_position="pre", final_norm=True, embedding_norm=True, encoder_positions="learned",
    decoder_positions="learned", output_bias="frozen", target_vocab_size=11, tied_embeddings="all",
)  # fmt: skip
BARE = dataclasses.replace(
    CONFIG, attention_bias=False, ffn_bias=False, output_bias="none", encoder_positions="none"
)


@pytest.mark.parametrize("config", [CONFIG, FULL, BARE])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("strict", [True, False])
def test_there_and_back_is_the_same_bytes(config, dtype, strict):
    weights = initial_weights(config, 3, dtype)
    given = config if strict else None
    back = flax_to_torch(torch_to_flax(weights, given), given)
    assert list(back) == list(weights)
    for name, array in weights.items():
        assert back[name].dtype == dtype
        assert back[name].tobytes() == array.tobytes(), name


def test_leaves_by_hand():
    flax = torch_to_flax(initial_weights(FULL, 0), FULL)
    shapes = {name: array.shape for name, array in flax.items()}
    assert shapes["encoder.embedding.embedding"] == (11, 6)
    assert shapes["encoder.pos_embedding.embedding"] == (5, 6)
    assert shapes["encoder.embedding_norm.scale"] == (6,)
    assert shapes["encoder.enc_layers.1.ffn.fc1.kernel"] == (6, 7)
    assert shapes["decoder.dec_layers.0.ffn.fc2.kernel"] == (7, 6)
    assert shapes["decoder.dec_layers.0.layerNorm3.bias"] == (6,)
    assert "decoder.finalFc.kernel" not in shapes


def test_square_kernels_are_transposed_too():
    name = "encoder.enc_layers.0.multiheadattention.fcQ"
    weights = initial_weights(CONFIG, 0)
    flax = torch_to_flax(weights, CONFIG)
    assert np.array_equal(flax[f"{name}.kernel"], weights[f"{name}.weight"].T)
    assert not np.array_equal(flax[f"{name}.kernel"], weights[f"{name}.weight"])


@pytest.mark.parametrize("given", [CONFIG, None])
@pytest.mark.parametrize("side", ["torch", "flax"])
def test_what_is_no_array_of_numpy(side, given):
    weights: dict = initial_weights(CONFIG, 0)
    convert = torch_to_flax if side == "torch" else flax_to_torch
    if side == "flax":
        weights = torch_to_flax(weights)
    one, other, *_ = weights
    weights |= {one: weights[one].tolist(), other: None}
    with pytest.raises(UserError) as caught:
        convert(weights, given)
    assert len(caught.value.faults) == 2
    for name, kind in ((one, "list"), (other, "NoneType")):
        says(caught.value, name, kind, "NumPy array")


@pytest.mark.parametrize("side", ["torch", "flax"])
def test_all_faults_in_one_error(side):
    weights = initial_weights(CONFIG, 0)
    convert, shape = torch_to_flax, (13, 6)
    ffn = "encoder.enc_layers.0.ffn.fc1.weight"
    if side == "flax":
        weights, convert, shape = torch_to_flax(weights), flax_to_torch, (6, 13)
        ffn = "encoder.enc_layers.0.ffn.fc1.kernel"
    output = "decoder.finalFc." + ffn.rpartition(".")[2]
    weights[ffn] = weights[ffn].T
    weights["decoder.extra.fc1.bias"] = np.zeros(3)
    weights["decoder.finalFc.bias"] = np.zeros(13, np.int64)
    del weights[output]
    with pytest.raises(UserError) as caught:
        convert(weights, CONFIG)
    message = str(caught.value)
    assert "4 faults" in message
    assert f"missing {output!r}: expected float {list(shape)}" in message
    assert "extra 'decoder.extra.fc1.bias': float64 [3]" in message
    assert f"wrong shape of {ffn!r}" in message
    says(message, "dtype", "'decoder.finalFc.bias'", "int64 [13]", "expected float [13]")


def test_without_config_unknown_names_are_all_named():
    with pytest.raises(UserError) as caught:
        torch_to_flax({"encoder.what.weight": np.zeros(2), "fc1.kernel": np.zeros(2)})
    assert "'encoder.what.weight'" in str(caught.value)
    assert "'fc1.kernel'" in str(caught.value)


class TestTies:
    def test_an_alias_with_the_same_bytes_is_tied(self):
        weights = initial_weights(FULL, 0)
        plain = torch_to_flax(weights, FULL)
        weights["decoder.finalFc.weight"] = weights["encoder.embedding.weight"].copy()
        assert list(torch_to_flax(weights, FULL)) == list(plain)

    def test_an_alias_with_other_bytes_is_an_error(self):
        weights = initial_weights(FULL, 0)
        weights["decoder.finalFc.weight"] = weights["encoder.embedding.weight"] + 1
        with pytest.raises(UserError, match=r"encoder\.embedding.*decoder\.finalFc.*differ"):
            torch_to_flax(weights, FULL)


def test_imports_no_framework():
    program = (
        "import sys\n"
        "for name in ('torch', 'jax', 'flax', 'optax', 'orbax', 'tensorstore'):\n"
        "    sys.modules[name] = None\n"
        "import convert, convert.checkpoints, convert.__main__"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
