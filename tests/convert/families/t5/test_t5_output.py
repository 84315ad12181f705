"""Every case of ties and factor, what is read of each, and what is written of each."""

import itertools

import numpy as np
import pytest
from huggingface_cases import fault_of, settings_only, with_settings, with_tensors
from t5_cases import SCALED, build, our_t5, saved_t5

from convert.families.registry import FAMILIES
from convert.families.t5.output import (
    ASK,
    OVERWRITTEN,
    PLAIN,
    PLAIN_BY_NEW,
    ROWS,
    WRITTEN,
    Said,
    verdict_on,
)
from convert.families.t5.output import SCALED as BY_ROOT

# class, output of its own, tie, scale_decoder_outputs, version -> what is read
EXPECTED = {
    ("t5", True, True, None, "4.57.6"): OVERWRITTEN,
    ("t5", True, None, True, "4.57.6"): OVERWRITTEN,
    ("t5", False, True, False, "4.57.6"): ASK,
    ("t5", True, False, True, "4.57.6"): ASK,
    ("t5", False, True, True, "5.23.0"): BY_ROOT,
    ("t5", True, True, True, "5.23.0"): BY_ROOT,
    ("t5", True, True, False, "5.23.0"): PLAIN,
    ("t5", True, True, False, None): PLAIN,  # a key of version 5
    ("t5", False, True, False, "5.23.0"): PLAIN,
    ("t5", True, False, None, "4.57.6"): PLAIN,
    ("t5", True, False, None, None): PLAIN,
    ("t5", True, True, None, "5.0.0"): ASK,
    ("t5", False, None, None, None): BY_ROOT,
    ("t5", False, True, None, "5.0.0"): BY_ROOT,
    ("mt5", True, True, None, "4.57.6"): OVERWRITTEN,
    ("mt5", True, None, None, "4.57.6"): PLAIN,
    ("mt5", True, False, None, "4.57.6"): PLAIN,
    ("mt5", True, True, None, "5.23.0"): PLAIN,
    ("mt5", False, True, None, "5.23.0"): PLAIN_BY_NEW,
    ("mt5", False, True, None, "4.57.6"): BY_ROOT,
    ("mt5", False, False, None, "4.57.6"): PLAIN,
    ("umt5", True, True, None, "4.57.6"): OVERWRITTEN,
    ("umt5", True, None, None, None): OVERWRITTEN,
    ("umt5", True, True, None, "5.23.0"): ASK,
    ("umt5", True, False, None, "4.57.6"): PLAIN,
    ("umt5", True, False, None, "5.23.0"): PLAIN,
    ("umt5", False, None, None, "4.57.6"): BY_ROOT,
    ("umt5", False, True, None, "5.23.0"): BY_ROOT,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved model of each class, one table for all."""
    place = tmp_path_factory.mktemp("models")
    return {kind: saved_t5(build(kind, False), place / kind) for kind in ("t5", "mt5", "umt5")}


def source_of(case, folders):
    kind, own, tie, scale, version = case
    said = {"tie_word_embeddings": tie, "scale_decoder_outputs": scale}
    settings = said | {"transformers_version": version}
    source = folders[kind]
    table = source.tensors.read("shared.weight")
    stored = {} if tie in (True, None) and not own else {"lm_head__weight": table}
    stored |= {"lm_head__weight": table * 2} if own else {}
    source = with_settings(with_tensors(source, **stored), **settings)
    kept = {k: v for k, v in source.settings.items() if k not in settings or v is not None}
    return type(source)(source.tensors, kept)


def flagged(source, factor):
    return type(source)(source.tensors, source.settings, {"output_scale": factor})


@pytest.mark.parametrize("case", EXPECTED, ids=str)
def test_each_case(case, folders):
    family, source, verdict = FAMILIES[case[0]], source_of(case, folders), EXPECTED[case]
    if verdict == OVERWRITTEN:
        assert "computes with the table in its place" in fault_of(family.read_config, source)
        assert "lm_head.weight" in fault_of(family.read_config, flagged(source, 1.0))
        return
    if verdict == ASK:
        message = fault_of(family.read_config, source)
        assert f"--output-scale {SCALED!r}, or --output-scale 1" in message
        assert "--output-scale" in fault_of(family.read_config, flagged(source, 0.5))
    if verdict in (ASK, PLAIN_BY_NEW):
        for factor in (SCALED, 1.0):
            config = family.read_config(flagged(source, factor)).config
            assert config.output_scale == factor
            assert family.write_settings(config, source.settings) == source.settings
    if verdict == ASK:
        return
    reading = family.read_config(source)
    assert reading.config.output_scale == (SCALED if verdict == BY_ROOT else 1.0)
    assert reading.config.tied_embeddings == ("source_target" if case[1] else "all")
    assert family.write_settings(reading.config, source.settings) == source.settings
    told = any("version 5 of transformers, which wrote" in note for note in reading.notes)
    assert told == (verdict == PLAIN_BY_NEW)
    if verdict != PLAIN_BY_NEW:
        other = SCALED if reading.config.output_scale == 1.0 else 1.0
        assert "the file says" in fault_of(family.read_config, flagged(source, other))


def test_every_row_decides_some_case_and_every_case_has_a_row():
    kinds, flags = ("t5", "mt5", "umt5"), (True, False)
    cases = [Said(*x) for x in itertools.product(kinds, flags, flags, (None, True, False), flags)]
    assert all(verdict_on(case) for case in cases)
    deciding = {next(row for row in ROWS if row.holds(case)) for case in cases}
    assert deciding == set(ROWS)


def test_an_output_that_is_said_and_missing(folders):
    for kind, family in ((kind, FAMILIES[kind]) for kind in folders):
        source = with_settings(folders[kind], tie_word_embeddings=False)
        assert "lm_head.weight is missing" in fault_of(family.read_config, source)


@pytest.mark.parametrize(("kind", "ties", "factor"), WRITTEN, ids=str)
def test_what_is_written_is_read_as_it_was(kind, ties, factor):
    family = FAMILIES[kind]
    scale = SCALED if factor == BY_ROOT else 1.0
    config = our_t5(kind, tied_embeddings=ties, output_scale=scale)
    settings, skeleton = family.write_settings(config, None), family.written(config)
    arrays = {n: np.zeros(h.shape) for n, h in skeleton.tensors.items()}
    for number, name in enumerate(("decoder.embed_tokens.weight", "lm_head.weight"), 1):
        if name in arrays and ties != "all":
            arrays[name] += number
    source = with_tensors(
        settings_only(**settings),
        **{name.replace(".", "__"): array for name, array in arrays.items()},
    )
    asked = kind == "umt5" and ties != "all" and scale == SCALED
    if asked:
        assert "--output-scale" in fault_of(family.read_config, source)
        source = flagged(source, scale)
    read = family.read_config(source).config
    assert (read.tied_embeddings, read.output_scale) == (ties, scale)


def test_what_no_version_computes_is_refused():
    for kind, ties, factor in (("mt5", "source_target", SCALED), ("t5", "all", 0.5)):
        config = our_t5(kind, tied_embeddings=ties, output_scale=factor)
        message = fault_of(FAMILIES[kind].written, config)
        assert f"tied_embeddings is {ties!r} with output_scale {factor!r}" in message
