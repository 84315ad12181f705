"""A folder of either twin, converted by the command, computes in the other what it did."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from convert_cases import convert  # noqa: E402
from family_checks import batch  # noqa: E402
from family_table import assert_measured  # noqa: E402

import flax_transformer  # noqa: E402
import torch_transformer  # noqa: E402
from convert import torch_to_flax  # noqa: E402
from convert.core.tensors import Held  # noqa: E402
from convert.formats.safetensors import write_safetensors  # noqa: E402
from transformer_spec import TransformerConfig, initial_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
POST = TransformerConfig(
    source_vocab_size=11, target_vocab_size=13, hidden_dim=15, inner_dim=7, num_heads=3,
    num_encoder_layers=2, num_decoder_layers=3, max_length=9, pad_id=0,
)  # fmt: skip
CONFIGS = {
    "post": POST,
    "pre, tied, learned": replace(
        POST, source_vocab_size=13, norm_position="pre", final_norm=True, tied_embeddings="all",
        encoder_positions="learned", decoder_positions="learned", activation="gelu",
    ),
    "without biases": replace(
        POST, attention_bias=False, ffn_bias=False, output_bias="none", num_heads=5,
    ),
}  # fmt: skip


def torch_logits(folder, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        model = torch_transformer.load(folder)
        return model(torch.from_numpy(source), torch.from_numpy(target)).numpy()


def flax_logits(folder, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(flax_transformer.load(folder)(*map(jax.numpy.asarray, (source, target))))


LOGITS = {"torch": torch_logits, "flax": flax_logits}


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("one", "other"), [("torch", "flax"), ("flax", "torch")])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_same_logits_in_the_other_twin(config, one, other, tmp_path):
    draw = np.random.default_rng(2)
    weights = {n: a + draw.normal(0, 0.3, a.shape) for n, a in initial_weights(config, 0).items()}
    given = torch_to_flax(weights, config) if one == "flax" else weights
    folder = tmp_path / one
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", Held(given))
    config.save(folder / "config.json")
    convert(folder, tmp_path / other, "--to", other, "--container", "safetensors")
    source, target = batch(config)
    before, after = (
        LOGITS[one](folder, source, target),
        LOGITS[other](tmp_path / other, source, target),
    )
    assert before.dtype == after.dtype == np.float64
    assert_measured(f"twinformer {one}", "out", float(np.abs(before - after).max()))
    assert_measured(f"twinformer {other}", "in", float(np.abs(before - after).max()))
