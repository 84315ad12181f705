"""What docs/stability.md calls public is what there is: a change of it is made on purpose.

A name that is added is added here and on the page; one that goes, or a format version that rises,
is announced first as the page says.
"""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest

import convert.checkpoints.records
import convert.conversion.origin
import convert.core.ledger
import training_recipe.runs.record
import training_recipe.searching.published
import training_recipe.text.vocabulary_kinds
import transformer_spec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/stability.md").read_text(encoding="utf-8")
TWIN = {
    *("Dropout", "Heard", "Hypothesis", "Search", "Transformer", "attention_weights", "decode"),
    *("hear", "initialise", "load", "load_weights", "save", "weights"),
}
PUBLIC = {
    "twinformer": {
        *("Segment", "Transcriber", "Transcript", "TransformerConfig", "Translation"),
        *("Translator", "UserError", "__version__", "compare", "convert", "load", "train"),
    },
    "convert": {
        *("Average", "AverageRequest", "Conversion", "ConversionRequest", "Inspection"),
        *("OptaxAdafactor", "SourceRequest", "adafactor_to_optax", "adafactor_to_torch"),
        *("average", "convert", "flax_to_torch", "inspect", "torch_to_flax"),
    },
    "torch_transformer": TWIN,
    "flax_transformer": TWIN,
    "transformer_spec": {
        *("DROPOUTS", "FORMAT_VERSION", "LEARNED", "RELATIVE", "STORED", "ConfigError", "Faults"),
        *("TransformerConfig", "UserError", "canonical_name", "check_arrays", "check_features"),
        *("check_ids", "check_length", "check_memory", "check_names", "check_rows", "flax_name"),
        *("initial_weight", "initial_weights", "leaf_kind", "no_array", "no_features"),
        *("position_rows", "relative_buckets", "sinusoid_table", "source_positions"),
        *("tied_weights", "to_flax", "to_torch", "trained_names", "weight_shapes"),
    },
}
# The one public name without an __all__.
READING = "training_recipe.text.model_vocabularies"
TOPS = {*PUBLIC, "training_recipe", "parity"}
VERSIONS = {
    "config.json": transformer_spec.FORMAT_VERSION,
    "settings.json": training_recipe.runs.record.FORMAT_VERSION,
    "source.json": training_recipe.text.vocabulary_kinds.FORMAT_VERSION,
    "search.json": training_recipe.searching.published.FORMAT_VERSION,
    "tensors.json": convert.checkpoints.records.VERSION,
    "conversion.json": convert.core.ledger.LEDGER_VERSION,
    "origin.json": convert.conversion.origin.ORIGIN_VERSION,
}
FILES = dict.fromkeys(VERSIONS, 1) | {"certificate.json": 2, "parity train --json": 1}
WRITING = {
    "parity.certificates.certificate": "certificate.json",
    "parity.comparison.report": "certificate.json",
    "parity.training.comparison": "parity train --json",
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package):
    module = pytest.importorskip(package)
    assert set(module.__all__) == PUBLIC[package]
    assert len(module.__all__) == len(PUBLIC[package])
    assert all(hasattr(module, name) for name in PUBLIC[package])


@pytest.mark.parametrize("package", ["parity", "training_recipe"])
def test_packages_whose_names_are_not_public(package):
    assert not hasattr(importlib.import_module(package), "__all__")
    assert f"`{package}`" in PAGE


def test_the_page_names_what_is_public():
    row = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("| `")}
    for cell, names in (
        ("`twinformer`", PUBLIC["twinformer"]),
        ("`torch_transformer`, `flax_transformer`", TWIN),
    ):
        assert set(re.findall(r"`(\w+)`", row[cell].split("|")[2])) == names


def test_format_versions_are_those_of_the_page():
    assert VERSIONS == dict.fromkeys(VERSIONS, 1)
    rows = re.findall(r"^\| (`.*?) \| (\d) \|", PAGE, re.MULTILINE)
    told = {name: int(version) for cell, version in rows for name in re.findall("`(.*?)`", cell)}
    assert {name: told[name] for name in FILES} == FILES
    assert told["parity tpu --json"] == 3 and told["target.json"] == 1


@pytest.mark.parametrize("module", WRITING)
def test_format_versions_of_what_parity_writes(module, both_frameworks):
    assert importlib.import_module(module).FORMAT_VERSION == FILES[WRITING[module]]


def test_another_version_is_an_error_and_that_of_a_conversion_is_passed_over(tmp_path):
    listed = {"format_version": 1, "targets": {"a": {"sha256": "0"}}, "tensors": {"a": "0"}}
    for name in ("conversion.json", "tensors.json"):  # the second is asked first
        (tmp_path / name).write_text(json.dumps(listed))
        record = convert.checkpoints.records.record_in(tmp_path)
        assert record and record.path.name == name
    for name in ("tensors.json", "settings.json"):
        (tmp_path / name).write_text(json.dumps(listed | {"format_version": 2}))
    with pytest.raises(transformer_spec.UserError, match="tensors.json is .* of a newer version"):
        convert.checkpoints.records.record_in(tmp_path)
    with pytest.raises(transformer_spec.UserError, match="settings.json has format_version 2"):
        training_recipe.runs.record.RunRecord.load(tmp_path / "settings.json")
    (tmp_path / "tensors.json").unlink()
    (tmp_path / "conversion.json").write_text(json.dumps(listed | {"format_version": 2}))
    assert convert.checkpoints.records.record_in(tmp_path) is None


def test_examples_use_public_names_alone():
    known = PUBLIC | {READING: {"load_vocabularies"}, "parity": set()}
    used = set()
    for path in sorted((ROOT / "examples").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                used |= {(node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                used |= {(alias.name, "") for alias in node.names}
    ours = {(place, name) for place, name in used if place.partition(".")[0] in TOPS}
    assert {place for place, _ in ours} > {READING}
    assert not {(p, name) for p, name in ours if name not in {*known.get(p, ()), ""}}
    assert all(place in known for place, _ in ours)
