"""Whisper's folders of transformers: the library's logits, every form of its files, refusals."""

import json
import shutil

import numpy as np
import pytest
import torch
from convert_cases import convert, fail
from family_checks import assert_round_trip, assert_same_logits, export_source, import_source
from huggingface_cases import (
    assert_damage_is_named,
    fault_of,
    our_weights,
    shapes,
    with_settings,
    with_tensors,
)
from messages import says
from safetensors.numpy import save_file
from transformers import WhisperModel
from whisper_cases import (
    OUTPUT,
    build,
    heard,
    held,
    library_logits,
    loaded,
    saved,
    state_of,
)

import torch_transformer
from convert.conversion import inspect
from convert.conversion.request import SourceRequest
from convert.families.registry import recognize
from convert.families.whisper.names import Whisper
from convert.formats.safetensors import open_safetensors
from training_recipe.speech.tokens import SpeechTokens
from transformer_spec import TransformerConfig, trained_names

FAMILY = Whisper()
ENGLISH = {
    "pad_token_id": 50256,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "decoder_start_token_id": 50257,
}


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def usual(model, tmp_path_factory):
    return saved(model, tmp_path_factory.mktemp("whisper") / "given")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tied", [True, False])
def test_same_logits_and_back(tied, tmp_path):
    model = build(tied, activation_function="gelu" if tied else "relu")
    source = saved(model, tmp_path / "given")
    assert recognize(source).name == "whisper"
    config, canonical = import_source(FAMILY, source)
    assert (config.feature_dim, config.max_source_length, config.key_bias) == (5, 7, False)
    assert config.tied_embeddings == ("target_output" if tied else "none")
    features, target = heard()
    expected = library_logits(model, features, target)
    assert_same_logits(FAMILY, config, canonical, features, target, expected)
    assert_round_trip(FAMILY, source)
    assert shapes(FAMILY.written(config).tensors) == shapes(source.tensors)
    assert FAMILY.write_settings(config, source.settings) == source.settings


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_ours_is_loaded_by_the_library(tied, model, usual, tmp_path):
    config = FAMILY.read_config(usual).config
    config = TransformerConfig.from_dict(
        config.to_dict() | {"tied_embeddings": "target_output" if tied else "none", "pad_id": 3}
    )
    weights = our_weights(config)
    folder = tmp_path / "theirs"
    folder.mkdir()
    save_file(
        export_source(FAMILY, config, weights), folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "config.json").write_text(json.dumps(FAMILY.write_settings(config, None)))
    theirs = loaded(folder)
    features, target = heard()
    target[target == config.pad_id] = 4
    expected = library_logits(theirs, features, target)
    assert_same_logits(FAMILY, config, weights, features, target, expected, "out")
    again = saved(theirs, tmp_path / "again")
    assert shapes(again.tensors) == shapes(FAMILY.written(config).tensors)
    assert FAMILY.read_config(again).config == config


def test_encoder_positions_are_the_stored_ones_and_never_trained(usual):
    config, canonical = import_source(FAMILY, usual)
    name = "encoder.pos_embedding.weight"
    stored = usual.tensors.read("model.encoder.embed_positions.weight")
    assert canonical[name].tobytes() == stored.tobytes()
    assert name not in trained_names(config)
    assert "decoder.pos_embedding.weight" in trained_names(config)


def test_an_older_file_holds_the_output_too(model, usual):
    """Of a tied model it is the table, byte by byte."""
    source = held(state_of(model), usual)
    assert OUTPUT in source.tensors
    assert_round_trip(FAMILY, source)
    other = state_of(model)
    other[OUTPUT][3, 5] += 1e-9
    message = fault_of(import_source, FAMILY, held(other, usual))
    assert "tied" in message and "differ" in message


def test_a_pickle_with_the_output_comes_back(model, usual, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(usual.settings))
    convert(folder, tmp_path / "ours", "--to", "flax", "--container", "safetensors")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper", "--container", "pt")
    back = torch.load(tmp_path / "back" / "pytorch_model.bin", weights_only=True)
    state = model.state_dict()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_bare_model_has_no_prefix(model, usual, tmp_path):
    source = saved(model.model, tmp_path / "bare")
    assert source.settings["architectures"] == [WhisperModel.__name__]
    assert recognize(source).name == "whisper" and "encoder.conv1.weight" in source.tensors
    _, canonical = import_source(FAMILY, source)
    _, expected = import_source(FAMILY, usual)
    assert all(np.array_equal(canonical[name], expected[name]) for name in expected)
    assert_round_trip(FAMILY, source)


def test_shards_come_in_and_go_out(model, tmp_path):
    model.save_pretrained(tmp_path / "given", max_shard_size="40KB")
    assert len(list((tmp_path / "given").glob("*.safetensors"))) > 1
    convert(tmp_path / "given", tmp_path / "ours", "--to", "torch")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper", "--shard-size", "40000")
    back, state = loaded(tmp_path / "back").state_dict(), model.state_dict()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_module_around_it_is_taken_off_and_put_back(model, usual, tmp_path):
    state = {f"module.{name}": array for name, array in state_of(model).items()}
    folder = tmp_path / "around"
    folder.mkdir()
    torch.save({n: torch.from_numpy(a) for n, a in state.items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(usual.settings))
    convert(folder, tmp_path / "ours", "--to", "torch")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper")
    assert open_safetensors(tmp_path / "back" / "model.safetensors").keys() == state.keys()


def after_a_step(model, optimizer, usual, folder):
    """A folder with the weights and the optimizer after one step."""
    features, target = heard()
    inputs = torch.from_numpy(features).transpose(1, 2)
    model(input_features=inputs, decoder_input_ids=torch.from_numpy(target)).logits.sum().backward()
    optimizer.step()
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    (folder / "config.json").write_text(json.dumps(usual.settings))
    return folder


@pytest.mark.parametrize("everything", [True, False])
def test_moments_of_an_optimizer_come_back(everything, model, usual, tmp_path):
    """Of one that got the frozen table of positions as well, and of one that did not."""
    model = build()
    given = [p for p in model.parameters() if everything or p.requires_grad]
    optimizer = torch.optim.AdamW(given)
    folder = after_a_step(model, optimizer, usual, tmp_path / "trained")
    convert(folder, tmp_path / "ours", "--to", "flax")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper", "--container", "pt")
    back = torch.load(tmp_path / "back" / "optimizer.pt", weights_only=True)
    expected = optimizer.state_dict()
    assert back["state"].keys() == expected["state"].keys() and len(expected["state"]) == 112
    for number, state in expected["state"].items():
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(back["state"][number][key], state[key]), (number, key)
    optimizer.load_state_dict(back)


def test_moments_of_a_thawed_table_are_left_out(usual, tmp_path, capsys):
    """transformers 5 thaws encoder positions while it reads a folder."""
    model = build()
    positions = model.model.encoder.embed_positions.weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters())
    folder = after_a_step(model, optimizer, usual, tmp_path / "trained")
    convert(folder, tmp_path / "ours", "--to", "torch")
    says(capsys.readouterr().out, "moments of model.encoder.embed_positions.weight are left out")
    moments = open_safetensors(tmp_path / "ours" / "optimizer.safetensors")
    first = optimizer.state[model.model.decoder.embed_tokens.weight]["exp_avg"].numpy()
    assert np.array_equal(moments.read("exp_avg/decoder.embedding.weight"), first)
    assert positions in optimizer.state and not any("encoder.pos" in name for name in moments)


def test_ids_that_are_absent_are_those_of_english(usual):
    """As in the class, whatever the vocabulary's size is."""
    for size in (51864, 51865):
        source = held({}, with_settings(usual, **dict.fromkeys(ENGLISH, None), vocab_size=size))
        config = FAMILY.read_config(source).config
        assert (config.eos_id, config.decoder_start_id) == (50256, 50257)
        assert config.pad_id == SpeechTokens.of(size).start_of_lm


@pytest.mark.parametrize("size", [51864, 51865, 51866])
def test_padding_is_a_token_that_nothing_wants(size, usual):
    """And the file's own goes back out, as it does where there is no file."""
    tokens = SpeechTokens.of(size)
    for own in (tokens.end, 50256):
        ids = ENGLISH | {"pad_token_id": own, "eos_token_id": tokens.end}
        ids |= {"bos_token_id": tokens.end, "decoder_start_token_id": tokens.start}
        source = held({}, with_settings(usual, vocab_size=size, **ids))
        config = FAMILY.read_config(source).config
        assert config.pad_id == tokens.start_of_lm and config.unk_id == tokens.end
        assert (config.eos_id, config.bos_id, config.decoder_start_id) == (
            tokens.end,
            tokens.end,
            tokens.start,
        )
        assert FAMILY.write_settings(config, source.settings) == source.settings
        assert FAMILY.write_settings(config, None)["pad_token_id"] == tokens.end


def test_padding_of_other_vocabularies(usual):
    """The end of text cannot be it; another one is kept, and flags choose."""
    reading = FAMILY.read_config(usual)
    assert reading.config.pad_id == 96 and any("padding is 96" in note for note in reading.notes)
    other = FAMILY.read_config(with_settings(usual, pad_token_id=7))
    assert other.config.pad_id == 7 and not other.notes
    flagged = held(usual.tensors.read_all(), usual)
    chosen = type(flagged)(flagged.tensors, flagged.settings, {"pad_id": 5})
    assert FAMILY.read_config(chosen).config.pad_id == 5
    taken = with_settings(usual, eos_token_id=96, decoder_start_token_id=95, pad_token_id=None)
    assert FAMILY.read_config(taken).config.pad_id == 94


def test_settings_that_make_it_another_model_are_named(usual):
    wrong = {
        "scale_embedding": True,
        "use_weighted_layer_sum": True,
        "decoder_attention_heads": 4,
        "activation_function": "mish",
        "num_mel_bins": 80,
        "no_such_setting": 1,
        "vocab_size": 96,
    }
    message = fault_of(FAMILY.read_config, with_settings(usual, **wrong))
    assert "scale_embedding is True; only False" in message
    assert "use_weighted_layer_sum is True" in message
    assert "decoder_attention_heads 4 differ" in message
    assert "activation_function is 'mish'" in message
    assert "num_mel_bins is 80, and encoder.conv1 takes 5 numbers a frame" in message
    assert "no_such_setting" in message and "table of words has 97 rows" in message


def test_settings_of_training_are_told(usual):
    told = {"apply_spec_augment": True, "encoder_layerdrop": 0.1, "decoder_layerdrop": 0.2}
    notes = FAMILY.read_config(with_settings(usual, **told, mask_time_prob=0.5)).notes
    assert [note.partition(" ")[0] for note in notes] == [
        "pad_token_id",
        "encoder_layerdrop",
        "decoder_layerdrop",
        "apply_spec_augment",
    ]
    silent = {"forced_decoder_ids": [[1, 5]], "alignment_heads": [[1, 2]], "max_length": 448}
    kept = with_settings(usual, **silent, tie_word_embeddings=None, median_filter_width=9)
    del kept.settings["tie_word_embeddings"]
    reading = FAMILY.read_config(kept)
    assert reading.config.tied_embeddings == "target_output" and len(reading.notes) == 1


@pytest.mark.parametrize("name", ["WhisperForAudioClassification", "WhisperForCausalLM"])
def test_classes_that_are_no_encoder_decoder(name, usual):
    message = fault_of(FAMILY.read_config, with_settings(usual, architectures=[name]))
    assert name in message and "without a" in message


def test_damaged_tensors_are_named(usual):
    assert_damage_is_named(FAMILY, usual, "model.encoder.conv2.weight")
    assert_damage_is_named(FAMILY, usual, "model.decoder.layers.1.fc2.weight")
    bias = with_tensors(usual, model__encoder__layers__0__self_attn__k_proj__bias=np.zeros(12))
    assert "extra 'model.encoder.layers.0.self_attn.k_proj.bias'" in fault_of(
        import_source, FAMILY, bias
    )


def test_models_that_the_class_cannot_hold(usual):
    config = FAMILY.read_config(usual).config
    for field, value in {
        "key_bias": True,
        "encoder_positions": "learned",
        "decoder_positions": "frozen",
        "embedding_scale": 2.0,
        "norm_position": "post",
        "output_bias": "trained",
        "norm": "rms",
    }.items():
        other = TransformerConfig.from_dict(config.to_dict() | {field: value})
        assert f"{field} is {value!r}" in fault_of(FAMILY.write_settings, other, None)
    text = config.to_dict() | {"feature_dim": 0, "source_vocab_size": 97}
    message = fault_of(FAMILY.write_settings, TransformerConfig.from_dict(text), None)
    assert "feature_dim is 0; whisper takes features of sound" in message


def test_of_several_formats_safetensors_is_read(model, usual, tmp_path, capsys):
    folder = tmp_path / "several"
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    convert(folder, tmp_path / "ours", "--to", "torch", "--compare-files")
    said = capsys.readouterr().out
    assert "model.safetensors is read, not pytorch_model.bin" in said
    assert "pytorch_model.bin holds the same weights" in said


def test_inspect_tells_what_it_is(usual, tmp_path, model):
    model.save_pretrained(tmp_path / "given")
    found = inspect(SourceRequest(tmp_path / "given"))
    assert found.family == "whisper" and found.config.feature_dim == 5 and not found.fault


def test_a_twin_in_float64_from_the_converted_folder(model, tmp_path):
    model.save_pretrained(tmp_path / "given")
    convert(tmp_path / "given", tmp_path / "ours", "--to", "torch")
    features, target = heard()
    twin = torch_transformer.load(tmp_path / "ours")
    with torch.no_grad():
        found = twin(torch.from_numpy(features), torch.from_numpy(target)).numpy()
    assert np.abs(found - library_logits(model, features, target)).max() <= 1e-11


@pytest.mark.usefixtures("float64")
def test_other_positions_are_seen(usual, model):
    """The comparison itself: a table that nearly is the stored one changes the logits."""
    config, canonical = import_source(FAMILY, usual)
    canonical["encoder.pos_embedding.weight"] = canonical["encoder.pos_embedding.weight"] * 1.00001
    features, target = heard()
    expected = library_logits(model, features, target)
    with pytest.raises(AssertionError):
        assert_same_logits(FAMILY, config, canonical, features, target, expected)


def test_an_untied_output_that_is_missing_is_named(tmp_path, capsys):
    folder = tmp_path / "given"
    source = saved(build(False), folder)
    arrays = source.tensors.read_all()
    del arrays[OUTPUT]
    shutil.rmtree(folder)
    folder.mkdir()
    save_file(arrays, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(source.settings))
    assert "missing 'proj_out.weight'" in fail(capsys, folder, tmp_path / "ours", "--to", "torch")
