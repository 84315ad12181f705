"""save(model, folder): what load, convert and translate read, whole or absent."""

from pathlib import Path

import numpy as np
import pytest
from messages import saying

import flax_transformer
import torch_transformer
from convert.core.tensors import Held
from convert.formats.safetensors import write_safetensors
from parity.twins.cases import config_of
from training_recipe.text.model_vocabularies import load_vocabularies
from training_recipe.text.vocabulary import build_vocabulary
from transformer_spec import TransformerConfig, UserError, to_flax
from twinformer.translating.translator import Translator

TWINS = [torch_transformer, flax_transformer]
VOCABULARY = tuple(build_vocabulary("characters", ["abcdefg"], 11, side) for side in ("a", "b"))
CONFIG = config_of({"source_vocab_size": 11, "target_vocab_size": 11})


def weights_of(folder: Path) -> list[dict[str, np.ndarray]]:
    return [twin.weights(twin.load(folder)) for twin in TWINS]


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("config", [CONFIG, config_of({"tied_embeddings": "target_output"})])
def test_what_is_saved_is_loaded_by_both(twin, config: TransformerConfig, tmp_path: Path) -> None:
    twin.save(twin.Transformer(config, seed=3), tmp_path / "new" / "model")
    assert sorted(p.name for p in (tmp_path / "new").rglob("*")) == [
        "config.json",
        "model",
        "model.safetensors",
    ]
    for found, other in zip(weights_of(tmp_path / "new" / "model"), TWINS, strict=True):
        assert_equal(found, other.weights(other.Transformer(config, seed=3)))
    assert TransformerConfig.load(tmp_path / "new" / "model" / "config.json") == config


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("others", ["float32", "bfloat16"])
def test_mixed_number_formats_are_loaded_in_one_that_holds_them(
    twin, others: str, tmp_path: Path
) -> None:
    """As files of T5 in float16, whose ``wo`` are float32."""
    model = torch_transformer.Transformer(CONFIG, seed=3)
    torch_transformer.save(model, tmp_path / "mixed")
    arrays = {
        name: array.astype(others if ".fc2." in name else np.float16)
        for name, array in torch_transformer.weights(model).items()
    }
    write_safetensors(tmp_path / "mixed/model.safetensors", Held(arrays))
    named = arrays if twin is torch_transformer else dict(map(to_flax, arrays, arrays.values()))
    wide = {name: array.astype(np.float32) for name, array in named.items()}
    assert_equal(twin.weights(twin.load(tmp_path / "mixed")), wide)


@pytest.mark.parametrize("twin", TWINS)
def test_with_its_vocabularies_it_translates(twin, tmp_path: Path) -> None:
    model = twin.Transformer(CONFIG, seed=3)
    twin.save(model, tmp_path / "one", VOCABULARY)
    twin.save(model, tmp_path / "two", tmp_path / "one")
    twin.save(model, tmp_path / "three", tmp_path / "two" / "vocabulary")
    assert [v.size for v in load_vocabularies(tmp_path / "three" / "vocabulary", CONFIG)] == [
        11
    ] * 2
    found = [Translator(tmp_path / name, backend="torch")(["abc"]) for name in ("one", "three")]
    assert found[0] == found[1] and len(found[0]) == 1


@pytest.mark.parametrize("twin", TWINS)
def test_nothing_is_left_of_what_cannot_be_saved(twin, tmp_path: Path) -> None:
    model = twin.Transformer(CONFIG)
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="exists already"):
        twin.save(model, tmp_path / "taken")
    with pytest.raises(UserError, check=saying("source vocabulary", "11 tokens", 23)):
        twin.save(twin.Transformer(config_of({})), tmp_path / "other", VOCABULARY)
    with pytest.raises(UserError, check=saying(tmp_path / "taken", "source.json")):
        twin.save(model, tmp_path / "other", tmp_path / "taken")
    with pytest.raises(UserError, match="skeleton"):
        twin.save(twin.Transformer.skeleton(CONFIG), tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("saving", "other"),
    [(torch_transformer, flax_transformer), (flax_transformer, torch_transformer)],
)
def test_the_other_twins_model_is_refused(saving, other, tmp_path) -> None:
    model = other.Transformer(config_of({}))
    with pytest.raises(UserError, check=saying(f"{saving.__name__}.Transformer", other.__name__)):
        saving.save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_that_is_not_there_is_named_once(tmp_path) -> None:
    with pytest.raises(UserError, check=saying(tmp_path / "none", "source.json", "target.json")):
        torch_transformer.save(
            torch_transformer.Transformer(config_of({})), tmp_path / "model", tmp_path / "none"
        )
    assert list(tmp_path.iterdir()) == []
