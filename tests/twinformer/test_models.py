"""What a model is not: saved after it was changed, called with what it does not take."""

import copy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_transformer
import torch_transformer
from parity.twins.cases import config_of
from transformer_spec import UserError

CONFIG = config_of({"tied_embeddings": "target_output"})
IDS = np.array([[3, 4, 5], [6, 7, 8]])


def one_layer_more(model) -> None:
    layers = model.encoder.enc_layers
    layers.append(copy.deepcopy(layers[0]))


def torch_untied(model) -> None:
    table = model.decoder.embedding.weight
    model.decoder.finalFc.weight = torch.nn.Parameter(table.detach() + 1)


def torch_adapter(model) -> None:
    model.encoder.enc_layers[0].ffn.fc1.lora_A = torch.nn.Parameter(torch.ones(2, 2))


def torch_reparametrized(model) -> None:
    torch.nn.utils.parametrizations.weight_norm(model.encoder.enc_layers[0].ffn.fc1)


def torch_mixed(model) -> None:
    model.encoder.half()


def flax_adapter(model) -> None:
    model.encoder.enc_layers[0].ffn.fc1.lora_a = nnx.LoRAParam(jnp.ones((2, 2)))


def flax_mixed(model) -> None:
    kernel = model.encoder.enc_layers[0].ffn.fc1.kernel
    kernel.set_value(kernel[...].astype(jnp.float16))


CHANGES = [
    (torch_transformer, one_layer_more, "enc_layers.2"),
    (torch_transformer, torch_untied, "finalFc.weight"),
    (torch_transformer, torch_adapter, "fc1.lora_A"),
    (torch_transformer, torch_reparametrized, "fc1.weight"),
    (torch_transformer, torch_mixed, "float16"),
    (flax_transformer, one_layer_more, "enc_layers.2"),
    (flax_transformer, flax_adapter, "fc1.lora_a"),
    (flax_transformer, flax_mixed, "float16"),
]


@pytest.mark.parametrize(("twin", "change", "named"), CHANGES)
def test_it_is_not_saved(twin, change, named, tmp_path: Path) -> None:
    model = twin.Transformer(CONFIG, seed=3)
    change(model)
    with pytest.raises(UserError) as caught:
        twin.save(model, tmp_path / "model")
    assert "its config says" in str(caught.value) and named in str(caught.value)
    assert not list(tmp_path.iterdir())


class TestKeys:
    TWINS = (torch_transformer, flax_transformer)

    @pytest.mark.parametrize("twin", TWINS)
    @pytest.mark.parametrize("key", [1.5, -1, 2**32, np.int64(-1), "a", None, True])
    def test_what_is_no_key(self, twin, key) -> None:
        with pytest.raises(UserError, match="key of a Dropout"):
            twin.Dropout(key)

    def test_what_is_no_key_as_an_array(self) -> None:
        for key in (jnp.float32(1.5), jnp.arange(2), jax.random.key(1)):
            with pytest.raises(UserError, match="key of a Dropout"):
                flax_transformer.Dropout(key)

    @pytest.mark.parametrize("key", [0, 5, np.uint32(5), np.int64(7), 2**32 - 1])
    def test_both_twins_drop_the_same(self, key) -> None:
        ours, theirs = (twin.Dropout(key) for twin in self.TWINS)
        found = ours.keep_mask(torch.zeros(50), 0.5).numpy()
        assert (found == np.asarray(theirs.keep_mask(jnp.zeros(50), 0.5))).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_model_drops_out_in_its_own_format(dtype: str) -> None:
    config = config_of({"dropout": 0.5})
    model = torch_transformer.Transformer(config, 3, getattr(torch, dtype))
    ids = torch.tensor(IDS)
    whole, dropped = model(ids, ids), model(ids, ids, torch_transformer.Dropout(7))
    assert whole.dtype == dropped.dtype == getattr(torch, dtype) and (whole != dropped).any()
    assert model.train()(ids, ids).dtype == whole.dtype
    other = flax_transformer.Transformer(config, 3, getattr(jnp, dtype))
    logits = other(jnp.asarray(IDS), jnp.asarray(IDS), flax_transformer.Dropout(7))
    assert logits.dtype == dtype
    apart = np.abs(dropped.detach().float().numpy() - np.asarray(logits, np.float32))
    assert apart.max() < 0.2


class TestCalls:
    @pytest.mark.parametrize(
        ("twin", "array"), [(torch_transformer, torch.tensor), (flax_transformer, jnp.asarray)]
    )
    def test_what_no_model_takes(self, twin, array) -> None:
        model, ids = twin.Transformer(CONFIG), array(IDS)
        memory = model.encode(ids)
        with pytest.raises(UserError, match="memory has 3 positions"):
            model.decode(ids, memory, array(IDS[:, :2]))
        with pytest.raises(UserError, match="skeleton"):
            twin.Transformer.skeleton(CONFIG)(ids, ids)
        with pytest.raises(UserError, match="give integers"):
            model(array(IDS[:0]), array(IDS[:0]))

    def test_integers_that_torch_does_not_look_up(self) -> None:
        ids = torch.tensor(IDS, dtype=torch.uint8)
        with pytest.raises(UserError, match="torch.int64"):
            torch_transformer.Transformer(CONFIG)(ids, ids)

    @pytest.mark.filterwarnings("ignore:There is a performance drop")
    def test_functions_of_torch(self) -> None:
        """Gradients of each row, as torch.func gives them."""
        model, ids = torch_transformer.Transformer(CONFIG), torch.tensor(IDS)
        held = dict(model.named_parameters())

        def loss(held, row):
            return torch.func.functional_call(model, held, (row[None], row[None])).sum()

        each = torch.func.vmap(torch.func.grad(loss), (None, 0))(held, ids)
        both = torch.func.grad(lambda held: sum(loss(held, row) for row in ids))(held)
        for name, gradient in both.items():
            torch.testing.assert_close(each[name].sum(0), gradient)
        whole = torch.func.functional_call
        at_once = torch.func.grad(lambda held: whole(model, held, (ids, ids)).sum())(held)
        torch.testing.assert_close(at_once, both)

    def test_tables_of_a_transform_are_of_it_alone(self) -> None:
        """Sinusoids are kept, and what a transform wraps is of no use after it."""
        model, ids = torch_transformer.Transformer(CONFIG), torch.tensor(IDS)
        torch_transformer.model._sinusoids.cache_clear()
        torch.func.functionalize(lambda ids: model(ids, ids))(ids)
        model(ids, ids).sum().backward()
        assert all(weight.grad is not None for weight in model.parameters())
