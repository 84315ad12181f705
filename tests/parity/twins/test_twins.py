"""The twins are the same function: DESIGN.md section 5, held bottom-up in float64."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from messages import saying

import flax_transformer
import torch_transformer
from flax_transformer.weights import fill, skeleton, variables
from parity.forward.one_pass import one_pass_bfloat16
from parity.twins import pair
from parity.twins.cases import FIELDS, can_be, config_of, pairwise_configs
from parity.twins.pair import Twins, bottom_up, float32_errors, loss_and_gradients
from parity.twins.recursive_sums import RecursiveSums
from parity.twins.table import Row, changed_file_bytes, verdict_of
from torch_transformer import products
from transformer_spec import TransformerConfig, to_torch

pytestmark = pytest.mark.usefixtures("float64")

CONFIGS = pairwise_configs()


@pytest.fixture(autouse=True)
def one_program(monkeypatch) -> None:
    """Gradients are one program, which tests compile sooner than all its operations."""
    compiled = functools.partial(pair.flax_gradients, compiled=True)
    monkeypatch.setattr(pair, "flax_gradients", compiled)


def exact_device(device: str) -> str:
    if device == "tpu":
        pytest.skip("a TPU has no float64; its float32 is judged in test_float32_error")
    return device


def test_pairwise_configs_hold_every_pair_of_values() -> None:
    rows = [dataclasses.asdict(config) for config in CONFIGS]
    for a in FIELDS:
        for b in FIELDS:
            seen = {(row[a], row[b]) for row in rows}
            pairs = ((x, y) for x in FIELDS[a] for y in FIELDS[b] if None not in (x, y))
            wanted = {(x, y) for x, y in pairs if can_be({a: x, b: y})}
            assert a == b or wanted <= seen


@pytest.mark.sampled(12)
@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_every_part_is_equal(index: int, device: str) -> None:
    differences = bottom_up(Twins(CONFIGS[index], "float64", exact_device(device)))
    assert {part: d for part, d in differences.items() if not d <= 1e-11} == {}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_loss_and_every_gradient_are_equal(index: int, device: str) -> None:
    twins = Twins(CONFIGS[index], "float64", exact_device(device))
    differences, _ = loss_and_gradients(twins, smoothing=0.1 * (index % 4), dropout_key=index)
    assert {name: d for name, d in differences.items() if not d <= 1e-10} == {}


def test_pre_norm_and_gelu_form_are_seen_by_the_check() -> None:
    """The comparison itself must see a difference where there is one."""
    config = config_of({"activation": "gelu"})
    twins = Twins(config, "float64")
    twins.flax = flax_transformer.Transformer(
        config_of({"activation": "gelu_tanh"}), dtype=np.float64
    )
    flax_transformer.load_weights(twins.flax, _flax_weights(twins.torch))
    assert bottom_up(twins)["logits"] > 1e-6


def _flax_weights(model: torch_transformer.Transformer) -> dict[str, np.ndarray]:
    from convert import torch_to_flax

    return torch_to_flax(torch_transformer.weights(model), model.config)


def test_same_seed_same_first_weights() -> None:
    twins = Twins(config_of({}), "float64", seed=7)
    ours = torch_transformer.weights(torch_transformer.Transformer(twins.config, seed=7))
    other = flax_transformer.Transformer(twins.config, seed=7)
    theirs = dict(to_torch(*item) for item in flax_transformer.weights(other).items())
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


BASE_DEPTH = config_of(
    {"hidden_dim": 256, "inner_dim": 512, "num_heads": 8, "target_vocab_size": 997}
    | {"num_encoder_layers": 6, "num_decoder_layers": 6}
)


@functools.cache
def sums_of(config: TransformerConfig) -> list[np.ndarray]:
    """The plain model's logits of a config, once they are there."""
    return []


class Sums(RecursiveSums):
    """The plain model, which computes once for a config: it is given the same weights and ids."""

    def __call__(self, *ids: np.ndarray) -> np.ndarray:
        held = sums_of(self.config)
        if not held:
            held.append(super().__call__(*ids))
        return held[0]


@pytest.fixture(scope="module")
def made_once():
    """The models of ``float32_errors`` are made and summed term after term once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair, "Twins", functools.cache(Twins))
        patch.setattr(pair, "RecursiveSums", Sums)
        yield


@pytest.mark.usefixtures("made_once")
def test_float32_error(device: str) -> None:
    """Each twin rounds no more than float32 allows, on a model of base depth."""
    errors = float32_errors(BASE_DEPTH, device)
    assert errors.allowed <= 2e-5
    assert max(errors.torch, errors.jax) <= errors.allowed


def narrow(x: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest numbers with ``bits`` bits after the first."""
    whole, power = torch.frexp(x)
    return torch.ldexp(torch.round(whole * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), power)


# Three passes of bfloat16 keep 16 bits, TF32 10, one pass of bfloat16 7.
@pytest.mark.parametrize("bits", [16, 10, 7])
@pytest.mark.usefixtures("made_once")
def test_narrower_products_are_seen_in_pytorch(bits: int, monkeypatch) -> None:
    wide = torch.nn.functional.linear

    def linear(x, weight, bias=None):
        given = (x, weight) if x.dtype == torch.float64 else (narrow(x, bits), narrow(weight, bits))
        return wide(*given, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(products, "SLOW_BLAS", False)  # every product is that one
    errors = float32_errors(BASE_DEPTH)
    assert errors.torch > errors.allowed >= errors.jax


@pytest.mark.thorough
@pytest.mark.usefixtures("made_once")
def test_narrower_products_are_seen_in_jax(monkeypatch) -> None:
    wide = flax_transformer.Transformer.__call__

    def call(self, *ids):
        bones, held = skeleton(self), {n: x[...] for n, x in variables(self).items()}
        return one_pass_bfloat16(lambda held, *ids: wide(fill(bones, held), *ids))(held, *ids)

    monkeypatch.setattr(flax_transformer.Transformer, "__call__", call)
    errors = float32_errors(BASE_DEPTH)
    assert errors.jax > errors.allowed >= errors.torch


def test_the_plain_model_is_the_twins_function() -> None:
    twins = Twins(config_of({}), "float64")
    plain = RecursiveSums(twins.config, torch_transformer.weights(twins.torch))
    logits = twins.flax(*map(twins.to_jax, (twins.source, twins.target)))
    assert np.abs(plain(twins.source, twins.target) - np.asarray(logits)).max() <= 1e-11
    with pytest.raises(ValueError, match="norm_position"):
        RecursiveSums(config_of({"norm_position": "pre"}), {})


def test_a_row_beyond_its_bound_is_the_verdict() -> None:
    rows = [Row("logits", 1e-15, 1e-11), Row("loss", 2.0141e-10, 1e-10), Row("nan", np.nan, 1)]
    assert verdict_of(rows[:1]).startswith("PASS")
    said = verdict_of(rows)
    assert said.startswith("FAIL: 2 of 3") and "loss: 2.014100e-10" in said


def test_fully_masked_row_is_finite() -> None:
    """A source of nothing but padding gives finite logits and finite gradients on both sides."""
    twins = Twins(config_of({}), "float64")
    twins.source[:] = twins.config.pad_id
    twins.target[:, 1:] = 5
    differences, gradients = loss_and_gradients(twins)
    assert all(np.isfinite(g).all() for g in gradients.values())
    assert max(differences.values()) <= 1e-10


def test_padding_does_not_change_real_positions() -> None:
    twins = Twins(config_of({"positions_skip_padding": True}), "float64")
    source, target = twins.source[:1, :5].copy(), twins.target[:1, :4].copy()
    wider = np.pad(source, ((0, 0), (0, 6))), np.pad(target, ((0, 0), (0, 3)))
    left = np.pad(source, ((0, 0), (6, 0))), target
    with torch.no_grad():
        plain = twins.torch(twins.to_torch(source), twins.to_torch(target))
        for other in (wider, left):
            logits = twins.torch(*map(twins.to_torch, other))[:, :4]
            assert float((plain - logits).abs().max()) <= 1e-12
    compiled = nnx.jit(lambda model, *ids: model(*ids))
    plain = compiled(twins.flax, *map(twins.to_jax, (source, target)))
    for other in (wider, left):
        logits = compiled(twins.flax, *map(twins.to_jax, other))[:, :4]
        assert float(abs(plain - logits).max()) <= 1e-12


def test_too_long_a_sequence_is_an_error_on_both_sides() -> None:
    twins = Twins(config_of({}), "float64")
    long = np.full((1, twins.config.max_length + 1), 5, np.int32)
    for model, give in ((twins.torch, twins.to_torch), (twins.flax, twins.to_jax)):
        with pytest.raises(ValueError, check=saying("18 tokens", "max_length 17")):
            model.encode(give(long))


def test_float32_matrix_products_keep_full_precision() -> None:
    """The compiled program asks for the highest precision although the user set nothing."""
    jax.config.update("jax_default_matmul_precision", None)
    twins = Twins(config_of({}), "float32")
    program = jax.jit(lambda s, t: twins.flax(s, t)).lower(twins.source, twins.target).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)


def test_files_of_a_checkpoint_come_back_as_they_were() -> None:
    assert changed_file_bytes() == 0
