"""A token id outside its vocabulary is one clear error in both twins, where ids come from users."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import torch
from flax import nnx
from messages import saying, says

import flax_transformer
import flax_transformer.decoding as flax_decoding
import flax_transformer.model as flax_model
import flax_transformer.step as flax_training
import torch_transformer
import torch_transformer.decoding as torch_decoding
import torch_transformer.model as torch_model
import torch_transformer.step as torch_training
from parity.twins.cases import config_of
from training_recipe.searching.search import Search
from transformer_spec import UserError, check_ids

ROOT = Path(__file__).parents[2]
CONFIG = config_of({"source_vocab_size": 11, "target_vocab_size": 13})
TWINS = [(torch_transformer, torch.tensor), (flax_transformer, jnp.asarray)]
SIDES = {
    torch_transformer: (torch_training, torch_decoding),
    flax_transformer: (flax_training, flax_decoding),
}


@pytest.mark.parametrize(("twin", "array"), TWINS)
def test_ids_outside_the_table(twin, array) -> None:
    model = twin.Transformer(CONFIG)
    right, wrong, negative = array([[5, 10]]), array([[5, 17]]), array([[5, -1]])
    with pytest.raises(UserError, check=saying("source token id 17", 11, "0 to 10")):
        model(wrong, right)
    with pytest.raises(UserError, match="source token id 17"):
        model.encode(wrong)
    with pytest.raises(UserError, check=saying("target token id 17", 13, "0 to 12")):
        model(right, wrong)
    memory = model.encode(right)
    with pytest.raises(UserError, match="target token id -1"):
        model.decode(negative, memory, right)
    assert model.decode(array([[12, 0]]), memory, right).shape == (1, 2, 13)


def test_what_is_traced_is_not_looked_at() -> None:
    twin, wrong = flax_transformer.Transformer(CONFIG), jnp.asarray([[5, 17]])
    assert jax.jit(lambda source: twin.encode(source))(wrong).shape[:2] == (1, 2)
    model = torch_transformer.Transformer.skeleton(CONFIG)
    wrong = torch.tensor([[5, 17]], device="meta")
    assert model.encode(wrong).shape[:2] == (1, 2)


def in_one_program(model, source, target):
    """The model's call where ids have a shape and a number format, and no numbers yet."""
    if isinstance(model, flax_transformer.Transformer):
        return nnx.jit(lambda model, *ids: model(*ids))(model, jnp.array(source), jnp.array(target))
    skeleton = torch_transformer.Transformer.skeleton(model.config)
    return skeleton(*(torch.tensor(ids, device="meta") for ids in (source, target)))


def in_one_program_decoded(model, source, target):
    """The same of ``decode``, given the memory of a source with two tokens."""
    if isinstance(model, flax_transformer.Transformer):
        memory = jnp.zeros((1, 2, CONFIG.hidden_dim))
        ids = jnp.array(target), memory, jnp.array(source)
        return nnx.jit(lambda model, *given: model.decode(*given))(model, *ids)
    memory = torch.zeros(1, 2, CONFIG.hidden_dim)
    return model.decode(torch.tensor(target), memory, torch.tensor(source))


NO_IDS = {
    "one axis": np.array([5, 6]),
    "floats": np.array([[5.9, 6.2]], np.float32),
    "bools": np.array([[True, False]]),
    "no token": np.zeros((1, 0), np.int32),
    "no row": np.zeros((0, 2), np.int32),
}
RIGHT = np.array([[5, 6]], np.int32)


def refused(call: Callable[..., object], model, ids: np.ndarray) -> None:
    """Held as users are, without the tests' own check of shapes, which would come first."""
    shape = str(list(ids.shape))
    for side, given in (("source", (ids, RIGHT)), ("target", (RIGHT, ids))):
        with pytest.raises(UserError, check=saying(side, shape, "integers [rows, tokens]")):
            call(model, *given)


@pytest.fixture
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("ids", NO_IDS.values(), ids=NO_IDS)
@pytest.mark.parametrize(("twin", "array"), TWINS)
def test_what_is_no_array_of_ids(twin, array, ids) -> None:
    model = twin.Transformer(CONFIG)
    refused(lambda model, *given: model(*map(array, given)), model, ids)
    refused(twin.attention_weights, model, ids)
    refused(in_one_program, model, ids)
    refused(in_one_program_decoded, model, ids)
    with pytest.raises(UserError, check=saying("source", ids.dtype, f"{list(ids.shape)}")):
        twin.decode(model, ids, Search(beam=2))


@pytest.mark.parametrize("wrong", [600, 11, -1, 2**32 + 5])
@pytest.mark.parametrize("twin", SIDES)
def test_searching_and_pictures_take_ids_of_the_vocabulary_alone(twin, wrong) -> None:
    model, ids = twin.Transformer(CONFIG), np.array([[5, wrong, 7]])
    outside = saying(f"source token id {wrong}", 11, "0 to 10")
    with pytest.raises(UserError, check=outside):
        twin.decode(model, ids, Search(beam=2))
    with pytest.raises(UserError, check=outside):
        twin.attention_weights(model, ids, RIGHT)
    with pytest.raises(UserError, check=saying("target token id 13", 13, "0 to 12")):
        twin.attention_weights(model, RIGHT, np.array([[2, 13]]))
    with pytest.raises(UserError, check=saying("target has 2", "source has 1")):
        twin.attention_weights(model, RIGHT, np.array([[2], [2]]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("twin", SIDES)
def test_rows_of_several_lengths_are_no_array(twin) -> None:
    model: Any = twin.Transformer(CONFIG)
    ragged: Any = [[5, 6], [7]]
    with pytest.raises(UserError, check=saying("source", "list", "numpy.ndarray")):
        twin.decode(model, ragged, Search())
    with pytest.raises(UserError, check=saying("target", "list", "numpy.ndarray")):
        twin.attention_weights(model, RIGHT, ragged)


@pytest.mark.parametrize("twin", SIDES)
def test_searching_takes_features_of_the_model_alone(twin) -> None:
    changes = {"feature_dim": 3, "source_vocab_size": 0, "tied_embeddings": "target_output"}
    model = twin.Transformer(config_of({**changes, "target_vocab_size": 13}))
    for given in (np.zeros((1, 4, 5), np.float32), np.zeros((4, 3), np.float32), RIGHT):
        with pytest.raises(UserError, check=saying("source features", f"{list(given.shape)}")):
            twin.decode(model, given, Search())


def test_training_and_searching_read_no_ids_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the device, in every step; a search looks at those that it is given, in NumPy."""

    def look(*_: object) -> None:
        raise AssertionError("ids were looked at")

    monkeypatch.setattr(torch_model, "check_tokens", look)
    monkeypatch.setattr(flax_model, "check_tokens", look)
    for twin, array in TWINS:
        model, ids = twin.Transformer(CONFIG), array([[5, 6, 7]])
        with pytest.raises(AssertionError, match="ids were looked at"):
            model.encode(ids)
        training, decoding = SIDES[twin]
        assert training.objective(model, ids, ids, ids, 0.1) > 0
        assert decoding.decode(model, np.array([[5, 6, 7]]), Search(beam=2))


@pytest.mark.parametrize("package", ["torch_transformer", "flax_transformer"])
def test_what_a_model_is_called_with(package) -> None:
    """Without the tests' own check of shapes and types, which would come first."""
    code = f"""
import numpy as np, {package} as twin
from transformer_spec import TransformerConfig, UserError
config = TransformerConfig(source_vocab_size=9, target_vocab_size=9, hidden_dim=4, inner_dim=4,
    num_heads=2, num_encoder_layers=1, num_decoder_layers=1, max_length=8)
make = __import__('torch').tensor if {package!r}[0] == 't' else __import__('jax').numpy.asarray
model = twin.Transformer(config)
source = make([[5, 6, 7]] * 2)
for given in ({{'target': make([[2, 5]])}}, {{'target': make([[2, 5]] * 3)}},
              {{'target': [[2, 5]] * 2}}, {{'target': make([[2, 5]] * 2), 'dropout': 0.1}}):
    try:
        model(source, **given)
    except UserError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for line, rows in zip(lines, (1, 3), strict=False):
        says(line, f"target has {rows}", "source has 2")
    says(lines[2], "target", "list")
    says(lines[3], "dropout", "float", f"{package}.Dropout")


@pytest.mark.parametrize(
    "ids",
    [np.array([2, 5]), np.array([[2.0, 5.0]]), np.zeros((1, 0), int)],
    ids=["1-d", "float", "none"],
)
def test_ids_are_rows_of_integers(ids) -> None:
    with pytest.raises(UserError, check=saying("source", ids.dtype, f"{list(ids.shape)}")):
        check_ids(ids, 9, "source")
