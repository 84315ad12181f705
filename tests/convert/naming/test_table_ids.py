"""Ids that no weight shows: what is taken is said, and is no other token's."""

import dataclasses

import pytest
from family_checks import export_source

from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.registry import TABLES
from convert.naming.family import NamedFamily
from convert.naming.parsing import parse_table
from convert.naming.shipped import table_text
from parity.twins.cases import config_of
from transformer_spec import initial_weights

BENTREVETT = TABLES["bentrevett-seq2seq"]
LEARNED = {f"{half}_positions": "learned" for half in ("encoder", "decoder")}
NONE_GIVEN = (
    "bentrevett-seq2seq: not given, and no weight shows them: unk_id 0, bos_id 2, eos_id 3, "
    "decoder_start_id 2 are taken; decoding and exports go by them, so give --unk-id, --bos-id, "
    "--eos-id where yours are others"
)


def read(family=BENTREVETT, config=None, **flags):
    """The reading of a model of a family's names."""
    config = config or config_of(LEARNED)
    written = Held(export_source(family, config, initial_weights(config, 0)))
    return family.read_config(Source(written, None, {"num_heads": config.num_heads, **flags}))


def ids_of(config) -> tuple[int, ...]:
    return config.unk_id, config.bos_id, config.eos_id, config.decoder_start_id


def test_ids_that_are_taken_are_said():
    found = read(pad_id=1)
    assert ids_of(found.config) == (0, 2, 3, 2)
    assert NONE_GIVEN in found.notes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"pad_id": 0}, (1, 2, 3, 2)),
        ({"pad_id": 2}, (1, 0, 3, 0)),
        ({"pad_id": 3}, (1, 2, 0, 2)),
        ({"pad_id": 0, "eos_id": 1}, (2, 3, 1, 3)),
        ({"pad_id": 0, "decoder_start_id": 0}, (1, 2, 3, 0)),
    ],
)
def test_no_two_of_them_are_one(given, expected):
    assert ids_of(read(**given).config) == expected


def test_given_ones_are_as_they_are_given():
    found = read(pad_id=1, unk_id=1, bos_id=2, eos_id=3)
    assert ids_of(found.config) == (1, 2, 3, 2)
    assert not any("are taken" in note for note in found.notes)


@pytest.mark.parametrize("name", ["flax-wmt", "flax-wmt-self-attention"])
def test_ids_of_flax_wmt_are_those_of_its_code(name):
    """Its decoding ends at 2; a model of ours that ends elsewhere has its names all the same."""
    family = TABLES[name]
    config = config_of(
        {
            "norm_position": "pre", "norm_epsilon": 1e-6, "sinusoid_layout": "concatenated",
            "sinusoid_frequency": "i/(d/2-1)", "embedding_scale": 1.0, "attention_bias": False,
            "pad_id": 0, "eos_id": 4, "decoder_start_id": 0,
        }
    )  # fmt: skip
    found = read(family, config, max_length=config.max_length)
    assert ids_of(found.config) == (0, 1, 2, 0)
    assert not any("are taken" in note for note in found.notes)
    assert family.write_settings(dataclasses.replace(found.config, eos_id=4), None)


def test_a_table_whose_padding_is_the_usual_end():
    text = table_text("bentrevett-seq2seq").replace("[config]", "[config]\npad_id = 3")
    found = read(NamedFamily(parse_table(text, "mine.toml")))
    assert found.config.pad_id == 3 and found.config.eos_id == 0
