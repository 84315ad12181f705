"""Settings that the library does not read, judged by its logits, and settings of no family."""

import json

import pytest
import torch
from huggingface_cases import TINY, fault_of, random_model, settings_only
from huggingface_configs import MARIAN
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
)

from convert.conversion.request import SourceRequest
from convert.conversion.sources.source import read_import
from convert.families.base import Source
from convert.families.huggingface.bart import Bart, MBart
from convert.families.huggingface.keys import TEXTS, UNREAD
from convert.families.huggingface.m2m100 import M2M100
from convert.families.huggingface.marian import Marian
from transformer_spec import UserError

CLASSES = {
    "marian": (Marian(), MarianConfig, MarianMTModel),
    "bart": (Bart(), BartConfig, BartForConditionalGeneration),
    "mbart": (MBart(), MBartConfig, MBartForConditionalGeneration),
    "m2m_100": (M2M100(), M2M100Config, M2M100ForConditionalGeneration),
}
OTHER_VALUES = {
    "is_encoder_decoder": False,
    "cross_attention_hidden_size": 5,
    "extra_pos_embeddings": 5,
    "add_bias_logits": False,
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon"), 0.5),
    **dict.fromkeys(TEXTS.split(), "deu"),
}


def unread_keys(kind: str) -> list[str]:
    family = CLASSES[kind][0]
    shared = [] if kind == "marian" else ["share_encoder_decoder_embeddings"]
    return [*UNREAD, *family.older, *TEXTS.split(), *shared, "unk_token_id"]


def other_value(kind: str, key: str):
    """A value that is not what the class does."""
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    if key == "unk_token_id":
        return 5
    done = CLASSES[kind][0].older.get(key, UNREAD.get(key, (True,))[0])
    return not done


def logits_of(model) -> torch.Tensor:
    source = torch.tensor([[5, 6, 7, 2, 1], [8, 9, 10, 11, 2]])
    target = torch.tensor([[2, 5, 6, 1], [2, 8, 9, 10]])
    with torch.no_grad():
        return model(
            input_ids=source,
            attention_mask=(source != 1).long(),
            decoder_input_ids=target,
            use_cache=False,
        ).logits


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_said_to_be_unread_changes_no_logit(kind):
    _, config_class, model_class = CLASSES[kind]
    model = random_model(model_class, config_class(**TINY))
    expected = logits_of(model)
    for key in unread_keys(kind):
        other = random_model(model_class, config_class(**TINY | {key: other_value(kind, key)}))
        other.load_state_dict(model.state_dict())
        assert torch.equal(logits_of(other), expected), key


@pytest.mark.parametrize("kind", CLASSES)
def test_unread_settings_are_said_and_change_no_config(kind):
    family = CLASSES[kind][0]
    usual = TINY | {"model_type": kind}
    before = family.read_config(settings_only(**usual))
    for key in {*UNREAD, *family.older} - {"add_bias_logits"}:
        value = other_value(kind, key)
        reading = family.read_config(settings_only(**usual | {key: value}))
        (note,) = set(reading.notes) - set(before.notes)
        assert note.startswith(f"{key} is {value!r}, which {family.architecture} does not read")
        assert reading.config == before.config
        written = family.write_settings(reading.config, usual | {key: value})
        assert written == usual | {key: value}


def test_ids_of_unknown_and_end():
    usual = MARIAN | {"unk_token_id": 7, "eos_token_id": [0, 3]}
    reading = Marian().read_config(settings_only(**usual))
    assert (reading.config.unk_id, reading.config.eos_id) == (7, 0)
    assert "eos_token_id is [0, 3]" in reading.notes[0]
    assert Marian().write_settings(reading.config, usual) == usual
    chosen = Source(settings_only(**usual).tensors, usual, {"eos_id": 3})
    assert Marian().read_config(chosen).config.eos_id == 3
    assert "dropout" in fault_of(
        Marian().read_config, Source(chosen.tensors, usual, {"dropout": 0.5})
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Marian model as the library saves it."""
    folder = tmp_path_factory.mktemp("marian")
    random_model(MarianMTModel, MarianConfig(**TINY | {"pad_token_id": 28})).save_pretrained(folder)
    return folder


def changed(folder, tmp_path, **changes):
    """The same folder with other settings; None takes one out."""
    there = tmp_path / "changed"
    there.mkdir()
    (there / "model.safetensors").symlink_to(folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in settings.items() if value is not None}
    (there / "config.json").write_text(json.dumps(kept))
    return there


def refusal(*arguments, **fields) -> str:
    with pytest.raises(UserError) as raised:
        read_import(SourceRequest(*arguments, **fields))
    return str(raised.value)


def test_settings_of_ones_own_are_passed_over_where_that_is_asked(folder, tmp_path):
    there = changed(folder, tmp_path, wandb_run="abc", my_rate=0.1)
    message = refusal(there)
    assert "my_rate = 0.1 is not known" in message and "wandb_run = 'abc'" in message
    assert "--ignore-setting my_rate --ignore-setting wandb_run" in message
    found = read_import(SourceRequest(there, ignore_settings=["wandb_run", "my_rate"]))
    assert [note.split(" ", 1)[0] for note in found.notes] == ["wandb_run", "my_rate"]
    assert all("--ignore-setting" in note for note in found.notes)
    message = refusal(there, ignore_settings=["d_model", "nothing"])
    assert "--ignore-setting d_model: it is known" in message
    assert "--ignore-setting nothing: there is no such setting" in message
    assert "wandb_run = 'abc' is not known" in message


def test_the_architecture_names_the_class_where_no_model_type_does(folder, tmp_path):
    found = read_import(SourceRequest(changed(folder, tmp_path, model_type=None)))
    assert found.family is not None and found.family.name == "marian"


def test_a_family_that_the_settings_contradict_is_refused(folder, tmp_path):
    there = changed(folder, tmp_path, model_type="bigbird_pegasus")
    message = refusal(there, family="marian")
    assert "model_type 'bigbird_pegasus'" in message and "not of marian" in message
    assert "only where that computes what marian does, write 'marian' there" in message
    assert "model_type 'marian'" in refusal(folder, family="bart")
    assert "model_type 'marian'" in refusal(folder, family="bart-flax")


def test_an_unknown_model_type_is_named_with_the_nearest_family(folder, tmp_path):
    message = refusal(changed(folder, tmp_path, model_type="bigbird_pegasus"))
    assert "model_type 'bigbird_pegasus'" in message and "nearest is marian" in message
    assert "m2m_100" in message and "names do not say what is computed" in message


def test_weights_without_the_file_of_settings_are_told_so(folder, tmp_path):
    there = changed(folder, tmp_path)
    (there / "config.json").unlink()
    message = refusal(there)
    assert "nearest is marian" in message
    assert "no config.json of its library lies beside it" in message


def test_tables_with_other_words_than_the_settings_say(folder, tmp_path):
    message = refusal(changed(folder, tmp_path, vocab_size=26))
    assert "vocab_size is 26, and the table of words has 29 rows" in message
    assert "give vocab_size its number" in message and "model.shared" not in message
