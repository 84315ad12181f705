"""Flax names of T5 and mT5: numbers of the Flax classes themselves, and files of their form.

The classes left the library with version 5. What FlaxT5- and FlaxMT5ForConditionalGeneration of
4.57.6 compute of the weights below, in float64 with their norms' casts widened, stands here; names,
shapes and shards were compared with the files that they saved.
"""

import json
import zlib

import numpy as np
import pytest
from convert_cases import convert
from family_checks import (
    assert_round_trip,
    export_source,
    import_source,
    twin_logits,
)
from family_table import assert_measured
from huggingface_cases import assert_damage_is_named, fault_of, with_settings, with_tensors
from t5_cases import SCALED, SIZES, build, flax_arrays, our_t5, saved_t5

from convert.checkpoints.reading import open_content
from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.registry import FAMILIES, recognize
from convert.formats.msgpack import write_msgpack

OLD = {
    "is_encoder_decoder": True,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "transformers_version": "4.57.6",
}
GATED = OLD | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
KINDS = {
    "t5-flax": OLD | {"model_type": "t5"},
    "t5-flax, gated": GATED | {"model_type": "t5"},
    "mt5-flax": GATED | {"model_type": "mt5"},
}
# Logits of rows 0, 0, 1, 1 at positions 0, 25, 3, 25 of words 1, 30, 7, 0; the sum of all.
TIED = (
    [0.430447296075035, -0.238856645834245, 0.5135021142831401, 0.27190654829003097],
    50.9878277484657,
)
UNTIED = (
    [-0.4967157376114138, 0.7811590367583312, -2.806173752201145, 1.0310754633252028],
    101.62857486723753,
)
COMPUTED = {"t5-flax": TIED, "t5-flax, gated": UNTIED, "mt5-flax": UNTIED}


def layer(place: str, attentions: tuple[str, ...], gated: bool, first: bool) -> dict:
    """The names of one block and their shapes, as in the files."""
    D, heads, F = 13, 15, 17
    found: dict[str, tuple[int, ...]] = {}
    for number, module in enumerate(attentions):
        at = f"{place}.layer.{number}"
        found |= {f"{at}.{module}.{part}.kernel": (D, heads) for part in "qkv"}
        found |= {f"{at}.{module}.o.kernel": (heads, D), f"{at}.layer_norm.weight": (D,)}
    if first:
        found[f"{place}.layer.0.SelfAttention.relative_attention_bias.embedding"] = (8, 3)
    at = f"{place}.layer.{len(attentions)}"
    parts = ("wi_0", "wi_1") if gated else ("wi",)
    found |= {f"{at}.DenseReluDense.{part}.kernel": (D, F) for part in parts}
    return found | {f"{at}.DenseReluDense.wo.kernel": (F, D), f"{at}.layer_norm.weight": (D,)}


def flax_shapes(gated: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"shared.embedding": (31, 13)}
    found |= {"lm_head.kernel": (13, 31)} if gated else {}
    for half, count, attentions in (
        ("encoder", 2, ("SelfAttention",)),
        ("decoder", 3, ("SelfAttention", "EncDecAttention")),
    ):
        for i in range(count):
            found |= layer(f"{half}.block.{i}", attentions, gated, i == 0)
        found[f"{half}.final_layer_norm.weight"] = (13,)
    return found


def flax_source(kind: str) -> Source:
    """A file of the Flax class; each weight's numbers come from its name."""
    arrays = {}
    for name, shape in flax_shapes("gated" in KINDS[kind]["feed_forward_proj"]).items():
        numbers = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.3, shape)
        arrays[name] = numbers + 1 if "norm" in name else numbers
    return Source(Held(arrays), SIZES | KINDS[kind])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_of_the_flax_classes(kind):
    draw = np.random.default_rng(1)
    source_ids, target_ids = draw.integers(3, 31, (2, 29)), draw.integers(3, 31, (2, 26))
    source_ids[1, 22:] = target_ids[:, 0] = 0
    family, source = FAMILIES[kind.partition(",")[0]], flax_source(kind)
    assert recognize(source) is family
    config, canonical = import_source(family, source)
    tied = kind == "t5-flax"
    assert config.tied_embeddings == ("all" if tied else "source_target")
    assert config.output_scale == (SCALED if tied else 1.0)
    some, total = COMPUTED[kind]
    for logits in twin_logits(config, canonical, source_ids, target_ids):
        found = logits[[0, 0, 1, 1], [0, 25, 3, 25], [1, 30, 7, 0]]
        assert_measured(family.name, "in", float(np.abs(found - some).max()))
        assert abs(logits.sum() - total) <= 1e-10
    assert_round_trip(family, source)
    assert family.write_settings(config, source.settings) == source.settings
    written = {name: header.shape for name, header in family.written(config).tensors.items()}
    assert written == {name: header.shape for name, header in source.tensors.items()}


@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_the_pytorch_class_s_weights_in_flax_names(kind, tmp_path):
    """The same canonical arrays from either naming."""
    own = kind == "mt5"
    version = {"transformers_version": "4.57.6", "tie_word_embeddings": not own}
    source = saved_t5(build(kind, own), tmp_path, **version, scale_decoder_outputs=None)
    config, canonical = import_source(FAMILIES[kind], source)
    named = Source(Held(flax_arrays(source.tensors.read_all())), source.settings)
    other, arrays = import_source(FAMILIES[f"{kind}-flax"], named)
    assert other == config and arrays.keys() == canonical.keys()
    assert all(np.array_equal(arrays[name], canonical[name]) for name in arrays)


@pytest.mark.parametrize("size", [[], ["--shard-size", "20kB"]])
def test_folders_there_and_back(size, tmp_path):
    source, given = flax_source("t5-flax, gated"), tmp_path / "given"
    given.mkdir()
    write_msgpack(given / "flax_model.msgpack", source.tensors)
    (given / "config.json").write_text(json.dumps(source.settings))
    convert(given, tmp_path / "ours", "--to", "torch")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "t5-flax", *size)
    files = sorted(path.name for path in (tmp_path / "back").glob("flax_model*"))
    assert len(files) == (6 if size else 1)
    if size:
        index = json.loads((tmp_path / "back/flax_model.msgpack.index.json").read_text())
        place = index["weight_map"]["decoder/block/0/layer/0/SelfAttention/k/kernel"]
        assert place == "flax_model-00001-of-00005.msgpack" and len(index["weight_map"]) == 66
    found = open_content(tmp_path / "back").tensors.read_all()
    expected = source.tensors.read_all()
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == expected[name].tobytes() for name in found)
    back, before = (tmp_path / name / "config.json" for name in ("back", "given"))
    assert back.read_bytes() == before.read_bytes()
    convert(tmp_path / "back", tmp_path / "again", "--to", "t5")
    again = open_content(tmp_path / "again").tensors
    assert np.array_equal(again.read("lm_head.weight"), expected["lm_head.kernel"].T)


def test_what_the_flax_modules_have_not():
    family = FAMILIES["t5-flax"]
    config = our_t5("t5", output_scale=1.0, activation="identity", norm_position="post")
    message = fault_of(family.written, config)
    for told in ("norm_position is 'post'", "'all' with output_scale 1.0", "the Flax modules do"):
        assert told in message


def test_damage_is_named():
    source = flax_source("t5-flax, gated")
    assert_damage_is_named(
        FAMILIES["t5-flax"], source, "decoder.block.2.layer.2.DenseReluDense.wo.kernel"
    )
    gone = with_tensors(source, lm_head__kernel=None)
    assert "lm_head.weight is missing" in fault_of(FAMILIES["t5-flax"].read_config, gone)
    tied = with_settings(source, tie_word_embeddings=True)
    assert "in its place" in fault_of(FAMILIES["t5-flax"].read_config, tied)
    renamed = dict(source.tensors.read_all())
    renamed["encoder.final_layer_norm.scale"] = renamed.pop("encoder.final_layer_norm.weight")
    scaled = Source(Held(renamed), source.settings)
    message = fault_of(import_source, FAMILIES["t5-flax"], scaled)
    assert "missing 'encoder.final_layer_norm.weight'" in message


def test_a_model_of_ours_comes_back():
    family = FAMILIES["t5-flax"]
    config = our_t5("t5", gated_ffn=True, activation="gelu")
    arrays = {
        name: np.random.default_rng(3).normal(0, 1, header.shape)
        for name, header in family.written(config).tensors.items()
    }
    source = Source(Held(arrays), family.write_settings(config, None))
    back, canonical = import_source(family, source)
    assert back == config
    assert export_source(family, config, canonical).keys() == arrays.keys()
