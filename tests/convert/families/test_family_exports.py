"""What is written with nothing kept aside computes the same as our model, or is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convert_cases import convert
from export_judges import CLASSES, JUDGES
from family_checks import batch
from family_table import LOGIT_BOUND, assert_measured
from flax_cases import flax_case
from huggingface_cases import (
    TINY,
    our_weights,
    random_model,
)
from torch_nn_cases import Case as Module
from tutorial_reference import Sizes, random_state

import torch_transformer
from convert.__main__ import main
from convert.checkpoints.reading import open_content
from convert.conversion.target import written_families
from convert.core.tensors import Held
from convert.families.registry import TABLES
from convert.formats.msgpack import write_msgpack
from convert.formats.safetensors import open_safetensors, write_safetensors
from parity.twins.cases import FIELDS
from transformer_spec import TransformerConfig, UserError

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]
FOREIGN = written_families()
# What one field may be: the values of parity's cases, and ids and sizes.
VALUES: dict[str, tuple[Any, ...]] = FIELDS | {
    "pad_id": (0, 1, 9),
    "unk_id": (0, 5),
    "bos_id": (0, 7),
    "eos_id": (2, 4),
    "source_vocab_size": (31,),
    "target_vocab_size": (31,),
    "max_length": (11,),
    "hidden_dim": (12,),
    "embedding_scale": (None, 1.0, 2.0),
    "attention_scale": (None, 1.0, 0.5),
    "norm_epsilon": (1e-5, 1e-6, 1e-3),
}
# What follows from a field where it is not said, and is not to stay as it was.
DERIVED: dict[str, dict[str, Any]] = {
    "max_length": {"max_source_length": None},
    "attention_bias": {"attention_output_bias": None, "key_bias": None},
}
# What they refuse is refused by the code of marian-flax and of the PyTorch family.
SAME_CODE = ("pegasus-flax", "blenderbot-flax", "blenderbot-small-flax", "mt5", "umt5", "mt5-flax")
# As is what T5 refuses, which test_family_t5 asks for without a file; of T5X it is as much.
THOROUGH = ("t5", "t5-flax", "t5x")


def ids_of(config: TransformerConfig) -> tuple[np.ndarray, np.ndarray]:
    """(source, target), whose first token is no padding."""
    source, target = batch(config)
    return source, target


def changed(held: TransformerConfig, field: str, value: Any) -> TransformerConfig:
    """The same model with another value of a field, and what has to go with that."""
    more = dict(DERIVED.get(field, {}))
    if field == "feature_dim":
        ties = held.tied_embeddings in ("none", "source_target")
        more["source_vocab_size"] = 0 if value else held.target_vocab_size
        more["tied_embeddings"] = "none" if ties else "target_output"
    return dataclasses.replace(held, **{field: value}, **more)


def our_logits(folder: Path, ids: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    model = torch_transformer.load(folder)
    with torch.no_grad():
        return model(*map(torch.from_numpy, ids)).numpy()


def write_ours(folder: Path, config: TransformerConfig) -> Path:
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", Held(our_weights(config)))
    config.save(folder / "config.json")
    return folder


def difference(name: str, ours: Path, theirs: Path) -> float:
    """Of the logits of two folders, where the target is no padding."""
    config = TransformerConfig.load(ours / "config.json")
    ids = ids_of(config)
    found, expected = our_logits(ours, ids), JUDGES[name].logits(theirs, config, ids)
    assert expected.dtype == np.float64 and np.abs(expected).max() > 1e-3
    return float(np.abs(found - expected)[ids[1] != config.pad_id].max())


def test_every_family_that_is_written_has_a_judge():
    """Those of tables have theirs in tests/convert/naming."""
    assert JUDGES.keys() == FOREIGN.keys() - TABLES.keys()


@pytest.mark.parametrize("name", JUDGES)
def test_a_model_that_the_family_holds(name, tmp_path):
    ours = write_ours(tmp_path / "ours", JUDGES[name].held)
    convert(ours, tmp_path / "theirs", "--to", name)
    assert_measured(name, "out", difference(name, ours, tmp_path / "theirs"))


@pytest.mark.parametrize("name", JUDGES)
def test_every_tensor_is_compared_when_it_is_read(name, tmp_path):
    ours = write_ours(tmp_path / "ours", JUDGES[name].held)
    for container in FOREIGN[name].containers:
        convert(ours, tmp_path / container, "--to", name, "--container", container)
        content = open_content(tmp_path / container)
        assert content.record is not None and set(content.tensors) == set(content.record.hashes)
        content.tensors.read_all()


@pytest.mark.sampled(60)
@pytest.mark.parametrize("field", VALUES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] if name in THOROUGH else [])
        for name in JUDGES
        if name not in SAME_CODE
    ],
)
def test_any_other_value_of_a_field(name, field, tmp_path):
    held = JUDGES[name].held
    for number, value in enumerate(VALUES[field]):
        try:
            config = changed(held, field, value)
        except UserError:
            continue  # no model of ours
        if config == held:
            continue
        ours, theirs = tmp_path / f"ours{number}", tmp_path / f"theirs{number}"
        write_ours(ours, config)
        status = main([str(ours), str(theirs), "--to", name])
        assert status == (0 if theirs.exists() else 2)
        if status == 0:
            assert difference(name, ours, theirs) <= LOGIT_BOUND, value


# Of whose two halves and inputs Whisper is made; a family of text has one value of each.
OF_SPEECH = {"feature_dim": 7, "max_source_length": 13, "key_bias": False}


@pytest.mark.parametrize("name", [name for name in JUDGES if not name.startswith("whisper")])
def test_parts_of_a_model_of_speech_are_refused_by_name(name):
    held = JUDGES[name].held
    for field, value in OF_SPEECH.items():
        other = {"key_bias": not held.attention_bias, "max_source_length": held.max_length + 1}
        config = changed(held, field, other.get(field, value))
        with pytest.raises(UserError, match=f"{field} is") as raised:
            FOREIGN[name].write_settings(config, None)
        assert raised.value.faults


@dataclass(frozen=True)
class Imported:
    """A checkpoint that holds more than our model has a place for, and the flags that read it."""

    path: Path
    flags: list[str]


def of_library(name: str, folder: Path, **changes: Any) -> Imported:
    """Every tensor of the module, sinusoids and marks of old files too."""
    model_class = CLASSES[name]
    special = {"pad_token_id": 28, "decoder_start_token_id": 28} if name == "marian" else {}
    model = random_model(model_class, model_class.config_class(**(TINY | special | changes)))
    model.save_pretrained(folder)
    arrays = {n: np.ascontiguousarray(t.numpy()) for n, t in model.state_dict().items()}
    if name == "m2m100":
        for half, module in (("encoder", model.model.encoder), ("decoder", model.model.decoder)):
            table = module.embed_positions.weights.numpy()
            arrays[f"model.{half}.embed_positions.weights"] = table
    elif name != "marian":
        arrays |= {f"model.{half}.version": np.full(1, 3.0) for half in ("encoder", "decoder")}
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "model.safetensors", Held(arrays))
    return Imported(folder, [])


def of_flax(name: str, folder: Path) -> Imported:
    _, source = flax_case(name.removesuffix("-flax"), folder, activation_function="gelu_new")
    (folder / "model.safetensors").unlink()
    write_msgpack(folder / "flax_model.msgpack", source.tensors)
    return Imported(folder, [])


def of_module(name: str, folder: Path) -> Imported:
    case = Module(activation="gelu", positions="learned", scale=1.0, embedding_norm=True)
    torch.save(case.module().state_dict(), folder / "model.pt")
    return Imported(
        folder / "model.pt", [f"--{n.replace('_', '-')}={v}" for n, v in case.flags().items()]
    )


def of_tutorial(name: str, folder: Path) -> Imported:
    write_safetensors(folder / "tutorial.safetensors", Held(random_state(Sizes(), "second")))
    return Imported(folder / "tutorial.safetensors", ["--from", "tutorial", *Sizes().flags()])


IMPORTED = {
    **{name: of_library for name in CLASSES},
    "marian, untied": lambda name, folder: of_library(name, folder, tie_word_embeddings=False),
    "bart, untied": lambda name, folder: of_library(name, folder, tie_word_embeddings=False),
    "m2m100, untied": lambda name, folder: of_library(name, folder, tie_word_embeddings=False),
    **{f"{name}-flax": of_flax for name in ("marian", "bart", "mbart")},
    "torch-nn": of_module,
    "tutorial": of_tutorial,
}
GONE = {
    "where it came from": ("origin.json",),
    "what was kept aside": ("kept_aside.safetensors",),
    "both": ("origin.json", "kept_aside.safetensors"),
    "dropped": (),
}


@pytest.fixture(params=IMPORTED)
def imported(request, tmp_path):
    """(family, converted folder of its checkpoint)"""
    name = request.param.partition(",")[0]
    (tmp_path / "given").mkdir()
    given = IMPORTED[request.param](name, tmp_path / "given")
    convert(given.path, tmp_path / "ours", "--to", "torch", *given.flags)
    return name, tmp_path / "ours"


@pytest.mark.sampled(13)
@pytest.mark.parametrize("gone", GONE)
def test_a_way_back_from_which_something_is_gone(imported, gone, tmp_path):
    name, ours = imported
    aside = ours / "kept_aside.safetensors"
    drop = [f"--drop={x}" for x in open_safetensors(aside)] if aside.exists() else []
    for file in GONE[gone]:
        (ours / file).unlink(missing_ok=True)
    convert(ours, tmp_path / "back", "--to", name, *(() if GONE[gone] else drop))
    assert difference(name, ours, tmp_path / "back") <= LOGIT_BOUND


def test_what_is_gone_is_said(tmp_path, capsys):
    given = of_library("marian", tmp_path / "given")
    convert(given.path, tmp_path / "ours", "--to", "torch")
    (tmp_path / "ours" / "kept_aside.safetensors").unlink()
    convert(tmp_path / "ours", tmp_path / "back", "--to", "marian")
    assert "nothing was kept aside of model.encoder.embed_positions" in capsys.readouterr().out
    assert not any(
        "embed_positions" in n for n in open_safetensors(tmp_path / "back/model.safetensors")
    )


def test_sinusoids_kept_aside_of_another_model_are_refused(tmp_path, capsys):
    given = of_library("marian", tmp_path / "given")
    convert(given.path, tmp_path / "ours", "--to", "torch")
    aside = tmp_path / "ours" / "kept_aside.safetensors"
    tables = {n: a[::-1] for n, a in open_safetensors(aside).read_all().items()}
    aside.unlink()
    write_safetensors(aside, Held(tables))
    words = [str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "marian"]
    assert main([*words, "--no-verify"]) == 2
    assert "not the sinusoids" in capsys.readouterr().err
    assert not (tmp_path / "back").exists()
