"""OpenAI's file of Whisper: its own names and sizes, judged by a restatement of them."""

import json

import numpy as np
import pytest
import torch
from convert_cases import convert, fail
from family_checks import assert_round_trip, assert_same_logits, import_source
from huggingface_cases import fault_of
from whisper_cases import (
    OF_OPENAI,
    build,
    dims_of,
    from_openai,
    heard,
    library_logits,
    loaded,
    openai_names,
    save_openai,
    settings_of_dims,
)

from convert.checkpoints.reading import open_content
from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.registry import recognize
from convert.families.whisper.openai import WhisperOpenAI
from training_recipe.speech.tokens import SpeechTokens
from transformer_spec import TransformerConfig

FAMILY = WhisperOpenAI()
IDS = {"eos_id": 90, "decoder_start_id": 91}
FLAGS = ("--eos-id", "90", "--decoder-start-id", "91")


@pytest.fixture(scope="module")
def model():
    return build(**OF_OPENAI)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return save_openai(model, tmp_path_factory.mktemp("openai") / "tiny.pt")


def source_of(model, **changes) -> Source:
    state = model.state_dict()
    arrays = {theirs: state[name].numpy() for name, theirs in openai_names(model).items()}
    return Source(Held(arrays), dims_of(model.config) | changes, IDS)


@pytest.mark.usefixtures("float64")
def test_same_logits_and_back(model):
    source = source_of(model)
    assert recognize(source).name == "whisper-openai"
    config, canonical = import_source(FAMILY, source)
    features, target = heard()
    expected = library_logits(model, features, target)
    assert_same_logits(FAMILY, config, canonical, features, target, expected)
    assert_round_trip(FAMILY, source)
    assert set(FAMILY.written(config).tensors) == set(source.tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_file_comes_back(dtype, model, tmp_path, capsys):
    """Its number format too; torch loads it as weights alone, as OpenAI's program asks for."""
    file = save_openai(model, tmp_path / "given.pt", dtype)
    convert(file, tmp_path / "ours", "--to", "torch", *FLAGS)
    assert "no tokenizer" in capsys.readouterr().out
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper-openai")
    assert {p.name for p in (tmp_path / "back").iterdir()} == {"model.pt", "conversion.json"}
    back = torch.load(tmp_path / "back" / "model.pt", weights_only=True)
    given = torch.load(file, weights_only=True)
    assert back["dims"] == given["dims"] and len(back) == 2
    weights, before = back["model_state_dict"], given["model_state_dict"]
    assert weights.keys() == before.keys()
    assert all(weights[n].dtype == dtype and torch.equal(weights[n], before[n]) for n in before)
    assert open_content(tmp_path / "back").settings == given["dims"]


def test_a_folder_of_transformers_in_float16(model, tmp_path):
    """By the restatement of OpenAI's names."""
    model.save_pretrained(tmp_path / "given")
    convert(tmp_path / "given", tmp_path / "file", "--to", "whisper-openai", "--dtype", "float16")
    content = torch.load(tmp_path / "file" / "model.pt", weights_only=True)
    settings, state = settings_of_dims(content["dims"]), model.state_dict()
    assert all(getattr(model.config, key) == value for key, value in settings.items())
    found = {from_openai(name): tensor for name, tensor in content["model_state_dict"].items()}
    assert found.keys() == state.keys() - {"proj_out.weight"}
    assert all(torch.equal(tensor, state[name].half()) for name, tensor in found.items())


@pytest.mark.usefixtures("float64")
def test_from_there_to_transformers(file, model, tmp_path, capsys):
    convert(file, tmp_path / "theirs", "--to", "whisper", *FLAGS)
    features, target = heard()
    found = library_logits(loaded(tmp_path / "theirs"), features, target)
    assert np.abs(found - library_logits(model, features, target)).max() <= 1e-11
    assert "tokenizer" in capsys.readouterr().out
    written = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert written["eos_token_id"] == 90 and written["model_type"] == "whisper"


@pytest.mark.parametrize("size", [51864, 51865, 51866])
def test_ids_follow_from_the_vocabulary_s_size(size, model):
    tokens = SpeechTokens.of(size)
    dims = dims_of(model.config) | {"n_vocab": size}
    config = FAMILY.read_config(Source(Held({}), dims)).config
    assert (config.eos_id, config.bos_id, config.unk_id) == (tokens.end,) * 3
    assert (config.decoder_start_id, config.pad_id) == (tokens.start, tokens.start_of_lm)
    assert FAMILY.write_settings(config, None) == dims
    other = TransformerConfig.from_dict(config.to_dict() | {"decoder_start_id": 7})
    assert "decoder_start_id is 7" in fault_of(FAMILY.write_settings, other, None)
    flagged = Source(Held({}), dims, {"pad_id": 8, "dropout": 0.1})
    found = FAMILY.read_config(flagged).config
    assert (found.pad_id, found.dropout) == (8, 0.1)


def test_ids_of_another_vocabulary_have_to_be_given(file, tmp_path, capsys):
    message = fail(capsys, file, tmp_path / "ours", "--to", "torch")
    assert "n_vocab 97 is none of Whisper's; --eos-id gives it" in message
    assert "--decoder-start-id gives it" in message


def test_sizes_of_weights_alone_are_given(model, file, tmp_path, capsys):
    content = torch.load(file, weights_only=True)
    torch.save(content["model_state_dict"], tmp_path / "alone.pt")
    (tmp_path / "dims.json").write_text(json.dumps(content["dims"]))
    words = [tmp_path / "alone.pt", tmp_path / "ours", "--to", "torch", "--from", "whisper-openai"]
    message = fail(capsys, *words, *FLAGS)
    assert "heads are not in the shapes; give --config FILE" in message
    convert(*words, *FLAGS, "--config", tmp_path / "dims.json")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper-openai")
    back = torch.load(tmp_path / "back" / "model.pt", weights_only=True)
    assert back["dims"] == content["dims"]


def test_sizes_that_contradict_each_other_are_named(model):
    wrong = source_of(model, n_audio_state=24, n_text_head=4, n_mels="80", n_new=1)
    message = fault_of(FAMILY.read_config, wrong)
    assert "n_audio_state is 24 and n_text_state 12" in message
    assert "n_audio_head is 3 and n_text_head 4" in message
    assert "n_mels is '80'; it must be a whole number above 0" in message and "n_new = 1" in message
    missing = source_of(model)
    settings = {name: size for name, size in missing.settings.items() if name != "n_text_ctx"}
    assert "n_text_ctx is missing" in fault_of(
        FAMILY.read_config, Source(missing.tensors, settings, IDS)
    )
    bins = source_of(model, n_mels=80)
    assert "n_mels is 80, and encoder.conv1 takes 5" in fault_of(FAMILY.read_config, bins)


def test_models_that_openai_s_program_cannot_hold(model, tmp_path, capsys):
    config = FAMILY.read_config(source_of(model)).config
    for field, value in {
        "inner_dim": 20,
        "activation": "relu",
        "tied_embeddings": "none",
        "key_bias": True,
        "encoder_positions": "learned",
        "norm_epsilon": 1e-6,
        "head_dim": 5,
    }.items():
        other = TransformerConfig.from_dict(config.to_dict() | {field: value})
        assert f"{field} is {value!r}" in fault_of(FAMILY.write_settings, other, None)
    found, notes = FAMILY.adapted(TransformerConfig.from_dict(config.to_dict() | {"dropout": 0.1}))
    assert found == config and any("dropout" in note for note in notes)


def test_openai_itself_loads_what_is_written(model, tmp_path):
    """Where its program is installed, which computes in float32."""
    # Not "whisper" alone, which a folder of tests is called as well.
    pytest.importorskip("whisper.model", reason="openai-whisper is not installed")
    import whisper  # pyright: ignore[reportMissingImports]

    model.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "written", "--to", "whisper-openai")
    found = whisper.load_model(str(tmp_path / "written" / "model.pt"), device="cpu")
    features, target = heard()
    mel = torch.from_numpy(features).float().transpose(1, 2)
    with torch.no_grad():
        logits = found(mel, torch.from_numpy(target)).numpy()
    expected = library_logits(model, features, target)
    assert np.abs(logits - expected).max() < 2e-5 * max(1.0, expected.std())
