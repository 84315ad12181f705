"""Flax names of Whisper: fixed numbers of transformers 4.57.6, whose Flax classes are gone since.

What FlaxWhisperForConditionalGeneration of 4.57.6 computes of the weights below in float64 stands
here; names and shapes are those of the files that it saved, and it has read what is written here.
"""

import json
import zlib

import numpy as np
import pytest
from convert_cases import convert
from family_checks import assert_round_trip, export_source, import_source, twin_logits
from family_table import assert_measured
from huggingface_cases import fault_of, shapes, with_settings, with_tensors
from whisper_cases import SIZES, build, state_of, torch_name

from convert.checkpoints.reading import open_content
from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.registry import recognize
from convert.families.whisper.flax import WhisperFlax
from convert.formats.msgpack import write_msgpack

FAMILY = WhisperFlax()
OLD = {"model_type": "whisper", "is_encoder_decoder": True, "transformers_version": "4.57.6"}
# Logits of rows 0, 0, 1, 1 at positions 0, 8, 3, 8 of words 1, 30, 7, 0; the sum of all.
COMPUTED = {
    True: (
        [-1.1034098198447015, -0.6747919474204678, 1.6798184528737243, 0.6064102454689427],
        -275.3032534252024,
    ),
    False: (
        [0.034902541239710025, -2.8182576417137133, -0.7304031504963653, 0.1674229985692574],
        11.719773937701023,
    ),
}


def linear(place: str, wide: int, high: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{place}.kernel": (wide, high)} | ({f"{place}.bias": (high,)} if bias else {})


def attention(place: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for part in "qkv":
        found |= linear(f"{place}.{part}_proj", 12, 12, part != "k")
    return found | linear(f"{place}.out_proj", 12, 12) | norm(f"{place}_layer_norm")


def norm(place: str) -> dict[str, tuple[int, ...]]:
    return {f"{place}.scale": (12,), f"{place}.bias": (12,)}


def flax_shapes(tied: bool) -> dict[str, tuple[int, ...]]:
    """What the files of 4.57.6 hold."""
    found: dict[str, tuple[int, ...]] = {"model.decoder.embed_tokens.embedding": (97, 12)}
    found |= {} if tied else {"lm_head.kernel": (12, 97)}
    for number, inside in ((1, 5), (2, 12)):
        place = f"model.encoder.conv{number}"
        found |= {f"{place}.kernel": (3, inside, 12), f"{place}.bias": (12,)}
    for half, layers, rows in (("encoder", 2, 7), ("decoder", 3, 11)):
        found[f"model.{half}.embed_positions.embedding"] = (rows, 12)
        found |= norm(f"model.{half}.layer_norm")
        for i in range(layers):
            at = f"model.{half}.layers.{i}"
            found |= attention(f"{at}.self_attn")
            found |= attention(f"{at}.encoder_attn") if half == "decoder" else {}
            found |= linear(f"{at}.fc1", 12, 20) | linear(f"{at}.fc2", 20, 12)
            found |= norm(f"{at}.final_layer_norm")
    return found


def flax_source(tied: bool = True) -> Source:
    """A file of the Flax class; each weight's numbers come from its name."""
    arrays = {}
    for name, shape in flax_shapes(tied).items():
        numbers = np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.3, shape)
        arrays[name] = numbers + 1 if name.endswith("scale") else numbers
    return Source(Held(arrays), SIZES | OLD | {"tie_word_embeddings": tied})


def written(folder, source: Source):
    folder.mkdir()
    write_msgpack(folder / "flax_model.msgpack", source.tensors)
    (folder / "config.json").write_text(json.dumps(source.settings))
    return folder


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tied", COMPUTED)
def test_the_numbers_of_the_flax_class(tied):
    draw = np.random.default_rng(1)
    features, target = draw.normal(size=(2, 14, 5)), draw.integers(0, 89, (2, 9))
    source = flax_source(tied)
    assert recognize(source).name == "whisper-flax"
    config, canonical = import_source(FAMILY, source)
    some, total = COMPUTED[tied]
    for logits in twin_logits(config, canonical, features, target):
        found = logits[[0, 0, 1, 1], [0, 8, 3, 8], [1, 30, 7, 0]]
        assert_measured("whisper-flax", "in", float(np.abs(found - some).max()))
        assert abs(logits.sum() - total) <= 1e-10
    assert_round_trip(FAMILY, source)
    assert FAMILY.write_settings(config, source.settings) == source.settings
    assert shapes(FAMILY.written(config).tensors) == shapes(source.tensors)


@pytest.mark.parametrize("tied", [True, False])
def test_the_pytorch_class_s_weights_in_flax_names(tied):
    """What is written, put into PyTorch names by this file's own reading."""
    config, canonical = import_source(FAMILY, flax_source(tied))
    arrays = export_source(FAMILY, config, canonical)
    state = dict(torch_name(name, array) for name, array in arrays.items())
    expected = state_of(build(tied))
    if tied:
        del expected["proj_out.weight"]
    assert {n: a.shape for n, a in state.items()} == {n: a.shape for n, a in expected.items()}


def test_shards_come_back(tmp_path):
    source = flax_source()
    given = written(tmp_path / "given", source)
    convert(given, tmp_path / "ours", "--to", "torch")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper-flax", "--shard-size", "30000")
    assert len(list((tmp_path / "back").glob("*.msgpack"))) > 1
    convert(tmp_path / "back", tmp_path / "again", "--to", "whisper-flax")
    back = open_content(tmp_path / "again").tensors.read_all()
    assert back.keys() == source.tensors.keys()
    assert all(np.array_equal(back[name], source.tensors.read(name)) for name in back)


def test_layers_that_a_loop_has_stacked_are_refused_by_name():
    name = "model.encoder.layers.FlaxEncoderScanLayers.fc1.kernel"
    scanned = with_tensors(flax_source(), **{name.replace(".", "__"): np.zeros((2, 12, 20))})
    message = fault_of(FAMILY.read_config, scanned)
    assert "layers stacked (FlaxEncoderScanLayers)" in message


def test_an_output_beside_a_tied_table_is_extra():
    head = with_tensors(flax_source(), lm_head__kernel=np.zeros((12, 97)))
    assert "extra 'lm_head.kernel'" in fault_of(import_source, FAMILY, head)


def test_faults_are_those_of_the_pytorch_class():
    source = with_settings(flax_source(), num_mel_bins=80, scale_embedding=True)
    message = fault_of(FAMILY.read_config, source)
    assert "num_mel_bins is 80" in message and "scale_embedding is True" in message
    turned = flax_source().tensors.read("model.encoder.conv1.kernel").T
    wrong = with_tensors(flax_source(), model__encoder__conv1__kernel=turned)
    assert "num_mel_bins is 5, and encoder.conv1 takes 5" not in fault_of(
        import_source, FAMILY, wrong
    )
