"""A model is its structure, numbers are given to it: skeletons, what fills them, and loading."""

import copy
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import flax_transformer
import torch_transformer
import transformer_spec.inventory as inventory
from convert.core.tensors import Held
from convert.formats.safetensors import write_safetensors
from parity.twins.cases import config_of, pairwise_configs
from transformer_spec import (
    TransformerConfig,
    UserError,
    initial_weights,
    to_flax,
    trained_names,
    weight_shapes,
)

CONFIGS = [
    config_of({}),
    config_of({"tied_embeddings": "target_output", "output_bias": "frozen"}),
    config_of({"encoder_positions": "learned", "decoder_positions": "learned"}),
    config_of({"embedding_norm": True, "norm_position": "pre", "ffn_bias": False}),
]
TWINS = [torch_transformer, flax_transformer]


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object) -> None:
        raise AssertionError("a number was drawn")

    monkeypatch.setattr(inventory, "_initial_value", draw)
    for name in ("uniform_", "normal_"):
        monkeypatch.setattr(torch.Tensor, name, draw)


def weights_of(twin, config: TransformerConfig, seed: int) -> dict[str, np.ndarray]:
    canonical = initial_weights(config, seed)
    if twin is torch_transformer:
        return canonical
    return dict(to_flax(*item) for item in canonical.items())


def assert_weights(twin, model, expected: dict[str, np.ndarray]) -> None:
    found = twin.weights(model)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def nothing_abstract(model) -> bool:
    if isinstance(model, torch.nn.Module):
        held = [*model.parameters(), *model.buffers()]
        return not any(tensor.is_meta for tensor in held)
    leaves = jax.tree.leaves(nnx.state(model))
    return all(isinstance(leaf, jax.Array) for leaf in leaves)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("config", CONFIGS)
def test_a_skeleton_is_initialised_or_loaded(twin, config: TransformerConfig) -> None:
    model = twin.Transformer.skeleton(config)
    assert not nothing_abstract(model)
    twin.initialise(model, seed=3)
    assert nothing_abstract(model)
    assert_weights(twin, model, weights_of(twin, config, 3))
    assert_weights(twin, twin.Transformer(config, 3), weights_of(twin, config, 3))
    twin.load_weights(model, weights_of(twin, config, 4))
    assert_weights(twin, model, weights_of(twin, config, 4))
    loaded = twin.Transformer.skeleton(config)
    twin.load_weights(loaded, weights_of(twin, config, 4))
    assert nothing_abstract(loaded)
    assert_weights(twin, loaded, weights_of(twin, config, 4))


def test_the_inventory_has_the_order_of_the_pytorch_twin() -> None:
    """torch.optim numbers parameters by it, and a state of ours is loaded by those numbers."""
    hears = config_of({"feature_dim": 7, "source_vocab_size": 0, "norm_position": "pre"})
    for config in [*pairwise_configs(), hears]:
        model = torch_transformer.Transformer.skeleton(config)
        assert list(weight_shapes(config)) == list(model.state_dict())
        assert trained_names(config) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize("twin", TWINS)
def test_given_arrays_stay_the_givers(twin) -> None:
    given = weights_of(twin, CONFIGS[0], 1)
    model = twin.Transformer.skeleton(CONFIGS[0])
    twin.load_weights(model, given)
    for array in given.values():
        array += 1
    assert_weights(twin, model, weights_of(twin, CONFIGS[0], 1))


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.usefixtures("no_drawing")
def test_a_skeleton_draws_nothing(twin) -> None:
    twin.Transformer.skeleton(CONFIGS[0])
    with pytest.raises(AssertionError, match="a number was drawn"):
        twin.Transformer(CONFIGS[0])


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("written", TWINS)
@pytest.mark.parametrize("config", CONFIGS[:2])
def test_loading_draws_nothing(
    twin, written, config: TransformerConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config.save(tmp_path / "config.json")
    write_safetensors(tmp_path / "model.safetensors", Held(weights_of(written, config, 5)))
    expected = weights_of(twin, config, 5)
    request.getfixturevalue("no_drawing")
    model = twin.load(tmp_path)
    assert nothing_abstract(model)
    assert_weights(twin, model, expected)


@pytest.mark.parametrize("twin", TWINS)
def test_bfloat16_weights_are_loaded(twin, tmp_path: Path) -> None:
    config = CONFIGS[0]
    rounded = {name: a.astype("bfloat16") for name, a in weights_of(twin, config, 5).items()}
    config.save(tmp_path / "config.json")
    write_safetensors(tmp_path / "model.safetensors", Held(rounded))
    assert_weights(twin, twin.load(tmp_path), rounded)


def test_one_weight_of_64_bits_makes_a_model_of_64_bits(tmp_path: Path) -> None:
    arrays = initial_weights(CONFIGS[0], 0)
    name = list(arrays)[5]
    arrays[name] = arrays[name].astype(np.float64)
    CONFIGS[0].save(tmp_path / "config.json")
    write_safetensors(tmp_path / "model.safetensors", Held(arrays))
    loaded = torch_transformer.weights(torch_transformer.load(tmp_path))
    assert all(np.array_equal(loaded[n], a) and loaded[n].dtype == "f8" for n, a in arrays.items())
    with pytest.raises(UserError, match="jax_enable_x64"):
        flax_transformer.load(tmp_path)


@pytest.mark.usefixtures("no_drawing")
def test_abstract_evaluation_draws_nothing() -> None:
    model = nnx.eval_shape(lambda: flax_transformer.Transformer(CONFIGS[0], 2))
    held, skeleton = nnx.state(model), flax_transformer.Transformer.skeleton(CONFIGS[0])
    assert jax.tree.map(str, held) == jax.tree.map(str, nnx.state(skeleton))


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_a_program_makes_the_model(config: TransformerConfig) -> None:
    program = jax.jit(lambda: nnx.split(flax_transformer.Transformer(config, 2))[1])
    assert (
        "stablehlo.constant" not in program.lower().as_text()
    )  # the weights are no constants of it
    made = nnx.jit(lambda: flax_transformer.Transformer(config, 2))()
    assert_weights(flax_transformer, made, weights_of(flax_transformer, config, 2))
    source = jax.numpy.array([[5, 6, 7]])
    plain = flax_transformer.Transformer(config, 2)
    np.testing.assert_array_equal(made(source, source), plain(source, source))


def test_numbers_are_given_to_an_abstract_model() -> None:
    plain = flax_transformer.Transformer(CONFIGS[1], 2)
    model = nnx.eval_shape(lambda: flax_transformer.Transformer(CONFIGS[1]))
    nnx.update(model, nnx.state(plain))
    assert nothing_abstract(model)
    assert_weights(flax_transformer, model, weights_of(flax_transformer, CONFIGS[1], 2))


@pytest.mark.usefixtures("no_drawing")
def test_meta_models() -> None:
    with torch.device("meta"):
        model = torch_transformer.Transformer(CONFIGS[0])
    assert all(parameter.is_meta for parameter in model.parameters())
    source = torch.ones(2, 3, dtype=torch.int64, device="meta")
    assert model(source, source).shape == (2, 3, CONFIGS[0].target_vocab_size)


@pytest.mark.parametrize("config", CONFIGS)
def test_tensors_are_assigned_to_a_skeleton(config: TransformerConfig) -> None:
    state = torch_transformer.Transformer(config, 2).state_dict()
    model = torch_transformer.Transformer.skeleton(config)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    model.load_state_dict(state, assign=True)
    assert nothing_abstract(model)
    assert all(model.state_dict()[name].data_ptr() == t.data_ptr() for name, t in state.items())
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    copy.deepcopy(model)


@pytest.mark.parametrize("twin", TWINS)
def test_number_formats(twin, float64) -> None:
    format = torch.float64 if twin is torch_transformer else np.float64
    for model in (
        twin.Transformer.skeleton(CONFIGS[1], format),
        twin.Transformer(CONFIGS[1], dtype=format),
    ):
        twin.initialise(model, 1)
        assert {array.dtype for array in twin.weights(model).values()} == {np.dtype("float64")}
    ours = twin.weights(model)["encoder.enc_layers.0.layerNorm1.bias"]
    assert not ours.any()
    expected = initial_weights(CONFIGS[1], 1, np.float64)["encoder.embedding.weight"]
    found = next(iter(twin.weights(model).values()))
    np.testing.assert_array_equal(found, expected)


def test_a_format_that_jax_would_replace_is_an_error() -> None:
    with pytest.raises(UserError, match="jax_enable_x64"):
        flax_transformer.Transformer.skeleton(CONFIGS[0], np.float64)
