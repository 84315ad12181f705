"""Old mistakes of this model's ancestors; each test fails when its mistake is put back."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

import flax_transformer
import torch_transformer
from parity.twins.cases import config_of, pairwise_configs
from parity.twins.pair import Twins, loss_and_gradients
from torch_transformer import model as torch_model
from torch_transformer.decoding_state import next_logits as torch_next
from torch_transformer.decoding_state import start as torch_start
from torch_transformer.step import objective
from transformer_spec import flax_name, to_torch, trained_names, weight_shapes

pytestmark = pytest.mark.usefixtures("float64")


def flax_names(model: flax_transformer.Transformer, kind: type) -> list[str]:
    return [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, kind))]


def test_every_layer_is_registered_under_the_inventory_s_names() -> None:
    for config in pairwise_configs():
        stored, trained = list(weight_shapes(config)), trained_names(config)
        ours = torch_transformer.Transformer(config)
        assert sorted(ours.state_dict()) == sorted(stored)
        assert sorted(name for name, _ in ours.named_parameters()) == sorted(trained)
        theirs = flax_transformer.Transformer(config)
        assert sorted(flax_names(theirs, nnx.Variable)) == sorted(map(flax_name, stored))
        assert sorted(flax_names(theirs, nnx.Param)) == sorted(map(flax_name, trained))


def test_a_layer_in_a_plain_list_would_be_missed(monkeypatch) -> None:
    """The check above sees the old mistake: layers held in a Python list."""
    monkeypatch.setattr(torch_model.nn, "ModuleList", list)
    model = torch_model.Encoder(config_of({}))
    assert not [name for name, _ in model.named_parameters() if "enc_layers" in name]


def test_initialisation_never_touches_a_bias_or_a_norm() -> None:
    config = config_of({"norm_position": "pre", "embedding_norm": True})
    ours = torch_transformer.weights(torch_transformer.Transformer(config, seed=4))
    held = flax_transformer.weights(flax_transformer.Transformer(config, 4))
    theirs = dict(to_torch(*item) for item in held.items())
    for name, array in ours.items():
        np.testing.assert_array_equal(theirs[name], array)
        if "norm" in name.lower():
            assert np.array_equal(array, np.full_like(array, float(name.endswith("weight"))))
        elif name.endswith("bias"):
            assert not array.any()
        else:
            assert array.any() and not np.isnan(array).any()


def test_backward_works_under_anomaly_detection() -> None:
    """In-place arithmetic on what autograd needs would raise here."""
    for config in pairwise_configs()[::5]:
        twins = Twins(config, "float64")
        arrays = twins.source, twins.target[:, :-1], twins.target[:, 1:]
        with torch.autograd.set_detect_anomaly(True):
            dropout = torch_transformer.Dropout(3)
            loss = objective(twins.torch, *map(twins.to_torch, arrays), 0.1, dropout)
            loss.backward()


@pytest.mark.thorough
def test_every_parameter_of_both_halves_is_trained(thorough) -> None:
    """Nothing is detached: the encoder gets gradients through the decoder, on both sides."""
    for config in pairwise_configs()[:: 9 if thorough else 36]:
        twins = Twins(config, "float64")
        twins.source[4, :4] = 5
        differences, gradients = loss_and_gradients(twins)
        assert max(differences.values()) <= 1e-10
        assert list(gradients) == trained_names(config)
        still = [name for name, g in gradients.items() if not np.abs(g).max() > 0]
        # A key bias adds the same number to all scores of a query, which softmax ignores: its
        # gradient is zero up to rounding by mathematics, not by mistake.
        assert [name for name in still if "fcK.bias" not in name] == []


def test_a_detached_encoder_would_be_seen(monkeypatch) -> None:
    encode = torch_transformer.Transformer.encoder_states
    monkeypatch.setattr(
        torch_transformer.Transformer, "encoder_states", lambda *a, **k: encode(*a, **k).detach()
    )
    with pytest.raises(Exception, match="encoder"):
        test_every_parameter_of_both_halves_is_trained(thorough=False)


@pytest.mark.parametrize("new", [1, 2])
def test_few_target_tokens_over_a_ten_token_source(new: int) -> None:
    """Query length differs from key length, in the cross and in the cached self-attention."""
    twins = Twins(config_of({}), "float64")
    source, target = twins.source[:, :10], twins.target[:, :7].copy()
    target[2, :3] = 5
    source[4, :4] = 6
    with torch.no_grad():
        s, t = twins.to_torch(source), twins.to_torch(target)
        whole = twins.torch(s, t)
        memory = twins.torch.encode(s)
        state = torch_start(twins.torch, memory, s, 7, 1)
        parts = []
        for column in range(0, 7, new):
            logits, state = torch_next(twins.torch, t[:, column : column + new], state)
            parts.append(logits)
        assert float((torch.cat(parts, 1) - whole).abs().max()) <= 1e-11
        assert float((twins.torch(s, t[:, :new]) - whole[:, :new]).abs().max()) <= 1e-11
    compiled = nnx.jit(lambda model, *ids: model(*ids))
    theirs = compiled(twins.flax, twins.to_jax(source), twins.to_jax(target[:, :new]))
    assert float(np.abs(np.asarray(theirs) - whole[:, :new].numpy()).max()) <= 1e-11


def test_masks_are_aligned_bottom_right() -> None:
    expected = [[True, True, True, False, False], [True, True, True, True, False]]
    expected = [row[:] for row in expected] + [[True] * 5]
    ours = torch_model.look_ahead_mask(3, 5)
    theirs = flax_transformer.layers.look_ahead_mask(3, 5)
    np.testing.assert_array_equal(ours[0, 0].numpy(), expected)
    np.testing.assert_array_equal(np.asarray(theirs)[0, 0], expected)
    assert ours.shape == theirs.shape == (1, 1, 3, 5)
    real = np.array([[True, True, False]])
    assert torch_model.padding_mask(torch.from_numpy(real)).shape == (1, 1, 1, 3)
    mask = flax_transformer.layers.padding_mask(jax.numpy.asarray(real))
    np.testing.assert_array_equal(np.asarray(mask)[0, 0, 0], real[0])
