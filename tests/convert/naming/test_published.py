"""Published modules: recognised by their names, equal in both twins, and back byte by byte."""

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
)
from flax import serialization, traverse_util  # noqa: E402

from convert import ConversionRequest, SourceRequest, convert, inspect  # noqa: E402
from convert.families.registry import FAMILIES, TABLES, recognize  # noqa: E402
from convert.formats.orbax import open_orbax  # noqa: E402
from convert.naming.family import NamedFamily  # noqa: E402
from convert.naming.table import parse_table  # noqa: E402
from transformer_spec import initial_weights  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]
IDS = {"unk_id": 3, "bos_id": 2, "eos_id": 4}
TOLD = {"num_heads": published.H, "pad_id": published.PAD, **IDS}
TORCH = [(name, kind) for name, kinds in published.MODULES.items() for kind in kinds]
FLAX = [(name, module) for name, modules in published_flax.MODULES.items() for module in modules]
FLAX_FLAGS = {"d2l-flax": TOLD, "other": {"max_length": 40, **IDS}}


def torch_logits(module, source, target) -> np.ndarray:
    return module.double()(torch.from_numpy(source), torch.from_numpy(target)).numpy()


@pytest.mark.parametrize(("name", "kind"), TORCH, ids=[kind.__name__ for _, kind in TORCH])
def test_a_torch_module(name, kind, tmp_path):
    module = published.made(kind)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    flags = TOLD | kind.flags
    source = source_of(module.state_dict(), flags=flags)
    family = recognize(source)
    assert family.name == name
    config, canonical = import_source(family, source)
    ids = batch(config)
    assert_same_logits(family, config, canonical, *ids, torch_logits(module, *ids))
    back = there_and_back(tmp_path, tmp_path / "model.pt", name, flags)
    module.float().load_state_dict(torch.load(back / "model.pt"), strict=True)
    for key, tensor in torch.load(tmp_path / "model.pt").items():
        assert module.state_dict()[key].numpy().tobytes() == tensor.numpy().tobytes(), key


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
    written = export_source(family, config, canonical)
    for key in family.written(config).tensors:
        written.setdefault(key, family.derived(key, config))
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in written.items()}
    module.float().load_state_dict(tensors, strict=True)
    ids = batch(config, seed=1)
    assert_same_logits(family, config, canonical, *ids, torch_logits(module, *ids), "out")


def perturbed(config) -> dict[str, np.ndarray]:
    """Initial weights with norms and biases moved off their zeros and ones."""
    draw = np.random.default_rng(5)
    weights = initial_weights(config, 0)
    return {
        name: array + draw.normal(0, 0.2, array.shape).astype(array.dtype) * (array.ndim == 1)
        for name, array in weights.items()
    }


@pytest.mark.parametrize(("name", "module"), FLAX, ids=[f"{name}-{m}" for name, m in FLAX])
def test_a_flax_module(name, module):
    params = published_flax.parameters(module)
    source = source_of(traverse_util.flatten_dict(params, sep="."), flags=flax_flags(name))
    family = recognize(source)
    assert family.name == name
    config, canonical = import_source(family, source)
    ids, expected = flax_logits(module, params, config)
    assert_same_logits(family, config, canonical, *ids, expected)
    assert_round_trip(family, source)


def flax_flags(name: str) -> dict:
    return FLAX_FLAGS.get(name, FLAX_FLAGS["other"])


def flax_logits(module, params, config) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Ids as our model is given them, and the module's logits in float64 for them."""
    source, target = batch(config)
    given = target
    if config.decoder_start_id == config.pad_id:  # the module is given what this one shifts
        target = np.pad(given[:, :-1], ((0, 0), (1, 0)))
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    logits = module.apply({"params": wide}, jnp.asarray(source), jnp.asarray(given))
    return (source, target), np.asarray(logits)


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
