"""Published modules: recognised by their names, equal in both twins, and back byte by byte."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
import published  # noqa: E402
import published_flax  # noqa: E402
from family_checks import (  # noqa: E402
    assert_round_trip,
    assert_same_logits,
    batch,
    export_source,
    import_source,
    source_of,
    twin_logits,
)
from family_table import assert_measured, max_difference  # noqa: E402
from flax import serialization, traverse_util  # noqa: E402
from messages import says  # noqa: E402

import torch_transformer  # noqa: E402
from convert import ConversionRequest, SourceRequest, convert, inspect  # noqa: E402
from convert.core.rules import ASIDE  # noqa: E402
from convert.families.registry import FAMILIES, recognize  # noqa: E402
from convert.formats.orbax import open_orbax  # noqa: E402
from convert.naming.family import NamedFamily  # noqa: E402
from convert.naming.parsing import parse_table  # noqa: E402
from transformer_spec import initial_weights, weight_shapes  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]
IDS = {"unk_id": 3, "bos_id": 2, "eos_id": 4}
TOLD = {"num_heads": published.H, "pad_id": published.PAD, **IDS}
LIKE_OTHERS = {"JadoreNothingShared", *(f"flax-wmt-{n}" for n in (1, 2, "self-attention-1"))}


def cases(modules: dict) -> list:
    """(table, module), those that are much like others for --thorough alone."""
    found = []
    for name, kinds in modules.items():
        for number, kind in enumerate(kinds):
            label = getattr(kind, "__name__", f"{name}-{number}")
            marks = [pytest.mark.thorough] * (label in LIKE_OTHERS)
            found.append(pytest.param(name, kind, id=label, marks=marks))
    return found


FLAX_FLAGS = {"d2l-flax": TOLD | {"max_length": 40}, "other": {"max_length": 40, **IDS}}


def torch_logits(module, source, target) -> np.ndarray:
    with torch.no_grad():
        return module.double()(torch.from_numpy(source), torch.from_numpy(target)).numpy()


@pytest.mark.parametrize(("name", "kind"), cases(published.MODULES))
def test_a_torch_module(name, kind, tmp_path):
    module = published.made(kind)
    flags = TOLD | kind.flags
    source = source_of(module.state_dict(), flags=flags)
    family = recognize(source)
    assert family.name == name
    config, canonical = import_source(family, source)
    ids = batch(config)
    assert_same_logits(family, config, canonical, *ids, torch_logits(module, *ids))
    assert_same_file(module, name, flags, tmp_path)


@pytest.mark.parametrize(
    ("kind", "since", "day"),
    [
        (published.Jadore, "fec78a6", "2020-06-07"),
        (published.Hyunwoongko, "67ccbb0", "2022-12-08"),
    ],
)
def test_versions_with_the_same_names_and_another_function_are_named(kind, since, day, tmp_path):
    torch.save(published.made(kind).state_dict(), tmp_path / "m.pt")
    flags = TOLD | kind.flags
    done = convert(ConversionRequest(tmp_path / "m.pt", tmp_path / "x", to="torch", fields=flags))
    says(done.notes, since, day, "same names", "another function", "python -m parity", "module:")


def test_a_map_says_that_a_module_around_a_class_is_read_by_the_class():
    kind = published.TranslationTutorial
    source = source_of(published.made(kind).state_dict(), flags=TOLD | kind.flags)
    around = {"decoder.finalFc": "generator"}
    assert recognize(source).name == "pytorch-translation-tutorial"
    assert recognize(replace(source, wrapper=around)).name == "torch-nn"


def assert_same_file(module, name: str, flags: dict, folder: Path) -> None:
    """Its file through a folder of ours is one that it loads, the same bytes."""
    state = module.float().state_dict()
    torch.save(state, folder / "model.pt")
    back = torch.load(there_and_back(folder, folder / "model.pt", name, flags) / "model.pt")
    module.load_state_dict(back, strict=True)
    assert inspect(SourceRequest(folder / "theirs")).family == name
    for key, tensor in state.items():
        assert back[key].numpy().tobytes() == tensor.numpy().tobytes(), key


def there_and_back(folder: Path, given: Path, name: str, flags: dict) -> Path:
    """A file as a folder of ours, and from there as one of theirs."""
    convert(ConversionRequest(given, folder / "ours", to="flax", fields=flags))
    convert(ConversionRequest(folder / "ours", folder / "theirs", to=name))
    return folder / "theirs"


@pytest.mark.parametrize("name", list(published.MODULES))
def test_a_model_of_ours_in_a_torch_module(name):
    """Other weights than its own, under the names and shapes that the table makes by itself."""
    module, family = published.made(published.MODULES[name][0]), FAMILIES[name]
    flags = TOLD | published.MODULES[name][0].flags
    config = family.read_config(source_of(module.state_dict(), flags=flags)).config
    canonical = perturbed(config)
    assert family.write_settings(config, None)["naming_table"] == name
    derived = {key: family.derived(key, config) for key in family.written(config).tensors}
    canonical |= {ASIDE + key: array for key, array in derived.items() if array is not None}
    written = export_source(family, config, canonical)
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in written.items()}
    module.float().load_state_dict(tensors, strict=True)
    source_ids, target_ids = batch(config, seed=1)
    ours = torch_transformer.Transformer(config, dtype=torch.float64)
    torch_transformer.load_weights(
        ours, {n: canonical[n].astype(float) for n in weight_shapes(config)}
    )
    expected, real = torch_logits(module, source_ids, target_ids), target_ids != config.pad_id
    logits = torch_logits(ours, source_ids, target_ids)
    assert_measured(name, "out", max_difference([logits], expected, real))


def perturbed(config) -> dict[str, np.ndarray]:
    """Initial weights with norms and biases moved off their zeros and ones."""
    draw = np.random.default_rng(5)
    weights = initial_weights(config, 0)
    return {
        name: array + draw.normal(0, 0.2, array.shape).astype(array.dtype) * (array.ndim == 1)
        for name, array in weights.items()
    }


@pytest.mark.parametrize(("name", "module"), cases(published_flax.MODULES))
def test_a_flax_module(name, module):
    params = published_flax.parameters(module)
    source = source_of(traverse_util.flatten_dict(params, sep="."), flags=flax_flags(name))
    family = recognize(source)
    assert family.name == name
    config, canonical = import_source(family, source)
    assert_flax_logits(name, module, params, config, canonical)
    assert_round_trip(family, source)


def assert_flax_logits(name, module, params, config, canonical, direction: str = "in") -> None:
    source_ids, given = batch(config)
    expected = flax_logits(module, params, source_ids, given)
    target = shifted(given) if config.decoder_start_id == config.pad_id else given
    logits = twin_logits(config, canonical, source_ids, target)
    assert expected.dtype == np.float64
    assert_measured(name, direction, max_difference(logits, expected, given != config.pad_id))


def flax_flags(name: str) -> dict:
    return FLAX_FLAGS.get(name, FLAX_FLAGS["other"])


def shifted(target: np.ndarray) -> np.ndarray:
    """What our decoder is given where the module shifts by itself."""
    return np.pad(target[:, :-1], ((0, 0), (1, 0)))


def flax_logits(module, params, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    return np.asarray(module.apply({"params": wide}, jnp.asarray(source), jnp.asarray(target)))


@pytest.mark.parametrize("name", ["flax-wmt", "d2l-flax"])
def test_a_model_of_ours_in_a_flax_module(name):
    """Other weights than its own, in the tree that the module has."""
    module, family = published_flax.MODULES[name][0], FAMILIES[name]
    params = published_flax.parameters(module)
    state = traverse_util.flatten_dict(params, sep=".")
    config = family.read_config(source_of(state, flags=flax_flags(name))).config
    canonical = perturbed(config)
    assert family.write_settings(config, None)["naming_table"] == name
    tree = traverse_util.unflatten_dict(export_source(family, config, canonical), sep=".")
    assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, dict(params))
    assert_flax_logits(name, module, tree, config, canonical, "out")


@pytest.mark.parametrize("name", list(published_flax.MODULES))
def test_flax_files(name, tmp_path):
    """As ``flax.serialization`` and Orbax write them, and back, where flax reads them again."""
    params = published_flax.parameters(published_flax.MODULES[name][0])
    given = tmp_path / "model.msgpack"
    given.write_bytes(serialization.to_bytes({"params": params}))
    back = there_and_back(tmp_path, given, name, flax_flags(name))
    found = serialization.from_bytes(params, (back / "flax_model.msgpack").read_bytes())
    assert_same_tree(found, params)
    convert(ConversionRequest(back, tmp_path / "tree", to=name, container="orbax"))
    arrays = open_orbax(tmp_path / "tree" / "orbax").read_all()
    assert_same_tree(traverse_util.unflatten_dict(arrays, sep="."), params)
    assert inspect(SourceRequest(tmp_path / "tree")).family == name


def assert_same_tree(found: dict, params: dict) -> None:
    same = jax.tree.map(lambda one, two: one.tobytes() == two.tobytes(), dict(found), dict(params))
    assert all(jax.tree.leaves(same))


FUSED = """
"encoder.embedding" = "encoder.embedding"
"encoder.layers_{i}.self_attn.qkv_proj" = { to = [
  "encoder.enc_layers.{i}.multiheadattention.fcQ",
  "encoder.enc_layers.{i}.multiheadattention.fcK",
  "encoder.enc_layers.{i}.multiheadattention.fcV",
], layout = "(in, heads parts dim)" }
"encoder.layers_{i}.self_attn.o_proj" = "encoder.enc_layers.{i}.multiheadattention.fcOut"
"encoder.layers_{i}.linear_0" = "encoder.enc_layers.{i}.ffn.fc1"
"encoder.layers_{i}.linear_3" = "encoder.enc_layers.{i}.ffn.fc2"
"encoder.layers_{i}.norm1" = "encoder.enc_layers.{i}.layerNorm1"
"encoder.layers_{i}.norm2" = "encoder.enc_layers.{i}.layerNorm2"
"""


def test_fused_heads_as_the_uvadlc_tutorial_has_them():
    """That tutorial has an encoder alone: here before the decoder of d2l, with biases in both."""
    shipped = (files("convert.naming") / "tables" / "d2l-flax.toml").read_text(encoding="utf-8")
    lines = [line for line in shipped.splitlines() if not line.startswith('"encoder.')]
    table = parse_table("\n".join(lines) + FUSED, "fused.toml")
    module = published_flax.D2L(fused=True)
    params = published_flax.parameters(module)
    source = source_of(traverse_util.flatten_dict(params, sep="."), flags=flax_flags("d2l-flax"))
    family = NamedFamily(table)
    config, canonical = import_source(family, source)
    assert_flax_logits("fused", module, params, config, canonical)
    assert_round_trip(family, source)
