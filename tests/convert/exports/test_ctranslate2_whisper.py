"""Whispers for CTranslate2: judged by what its own converter makes of the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from messages import says

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from convert_cases import fail  # noqa: E402
from ctranslate2_apart import ask  # noqa: E402
from ctranslate2_bytes import variables_of  # noqa: E402
from real_whispers import SIZES, real_whisper  # noqa: E402
from speech_models import random_whisper  # noqa: E402
from speech_tokenizers import THE, special, write_json, write_slow  # noqa: E402

from convert.__main__ import main  # noqa: E402
from training_recipe.speech.tokenizer import SpeechTokenizer  # noqa: E402
from training_recipe.speech.tokens import SpeechTokens  # noqa: E402

ENGLISH, SEVERAL = 51864, 51865
TO = ("--to", "ctranslate2")
BESIDE = {"config.json", "conversion.json", "model.bin", "preprocessor_config.json",
          "tokenizer.json", "vocabulary.json"}  # fmt: skip


def same_variables(one: Path, other: Path, lacking: int = 0) -> int:
    """Assert that all variables are equal bit for bit, and the aliases; how many there are."""
    (ours, our_names), (theirs, their_names) = (variables_of(p / "model.bin") for p in (one, other))
    assert len(ours.keys() - theirs.keys()) == lacking and not theirs.keys() - ours.keys()
    for name, array in theirs.items():
        found = ours[name]
        assert (found.shape, found.dtype) == (array.shape, array.dtype), name
        assert found.tobytes() == array.tobytes(), name
    assert our_names == their_names
    return len(ours)


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """A random multilingual model of transformers."""
    return random_whisper(tmp_path_factory.mktemp("library") / "hf", SEVERAL)


@pytest.fixture(scope="module")
def ours(library, tmp_path_factory) -> Path:
    """The same model as a folder of ours."""
    folder = tmp_path_factory.mktemp("ours") / "model"
    assert main([str(library), str(folder), "--to", "torch"]) == 0
    return folder


def exported(source: Path, folder: Path, *options: str) -> Path:
    assert main([str(source), str(folder), *TO, *options]) == 0
    return folder


class TestAgainstItsOwnConverter:
    @pytest.mark.sampled(3)
    @pytest.mark.parametrize(
        "quantization", ["float32", "bfloat16", "int16", "float16", "int8", "int8_float16"]
    )
    def test_all_variables_are_equal_bit_for_bit(self, library, ours, tmp_path, quantization):
        theirs = tmp_path / "theirs"
        ask("convert_whisper", str(library), str(theirs), quantization)
        found = exported(ours, tmp_path / "found", "--quantization", quantization)
        assert same_variables(found, theirs) > 100
        assert main([str(found), str(tmp_path / "back"), "--to", "torch"]) == 0  # as it is
        spelled = [json.loads((p / "vocabulary.json").read_text()) for p in (found, theirs)]
        assert spelled[0] == spelled[1] and len(spelled[0]) == SEVERAL

    @pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}])
    def test_fresh_models_whose_equal_biases_are_one(self, tmp_path, changes):
        library = random_whisper(tmp_path / "hf", ENGLISH, fresh=True, **changes)
        ask("convert_whisper", str(library), str(tmp_path / "theirs"))
        found = exported(library, tmp_path / "found")
        same_variables(found, tmp_path / "theirs")
        _, aliases = variables_of(found / "model.bin")
        assert len(aliases) > 20
        tied = changes.get("tie_word_embeddings", True)
        assert ("decoder/projection/weight" in aliases) == tied
        again = tmp_path / "again"
        assert main([str(found), str(again), "--to", "whisper"]) == 0
        ask("convert_whisper", str(again), str(tmp_path / "twice"))
        same_variables(found, tmp_path / "twice")


class TestTheFolder:
    def test_it_holds_what_faster_whisper_reads(self, ours, tmp_path, capsys):
        found = exported(ours, tmp_path / "found")
        assert {path.name for path in found.iterdir()} == BESIDE
        tokens = SpeechTokens.of(SEVERAL)
        config = json.loads((found / "config.json").read_text())
        assert config["lang_ids"] == [tokens.language(code) for code in tokens.languages]
        assert config["suppress_ids_begin"] == [220, tokens.end]
        assert {tokens.start, tokens.transcribe, 1} <= set(config["suppress_ids"])
        assert config["alignment_heads"] == [[1, 0], [1, 1], [2, 0], [2, 1]]
        features = json.loads((found / "preprocessor_config.json").read_text())
        assert (features["feature_size"], features["sampling_rate"]) == (5, 16000)
        said = capsys.readouterr().out
        assert "alignment heads" in said and f"WhisperModel({str(found)!r}" in said
        assert "pieces" not in said and 'language="en"' not in said

    def test_what_the_model_was_published_with_is_kept(self, library, tmp_path):
        given = {
            "suppress_tokens": [1, 50258], "begin_suppress_tokens": [220],
            "alignment_heads": [[2, 1]], "lang_to_id": {"<|de|>": 50261, "<|en|>": 50259},
        }  # fmt: skip
        place = tmp_path / "hf"
        place.mkdir()
        for path in library.iterdir():
            (place / path.name).write_bytes(path.read_bytes())
        (place / "generation_config.json").write_text(json.dumps(given))
        (place / "preprocessor_config.json").write_text('{"feature_size": 5, "mine": 1}')
        found = exported(place, tmp_path / "found")
        assert json.loads((found / "config.json").read_text()) == {
            "suppress_ids": [1, 50258], "suppress_ids_begin": [220],
            "alignment_heads": [[2, 1]], "lang_ids": [50259, 50261],
        }  # fmt: skip
        assert "mine" in (found / "preprocessor_config.json").read_text()

    def test_a_tokenizer_in_two_files_becomes_one(self, library, tmp_path):
        place = write_slow(tmp_path / "hf", SEVERAL, first=1)
        for name in ("config.json", "model.safetensors"):
            (place / name).write_bytes((library / name).read_bytes())
        found = exported(place, tmp_path / "found")
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(found / "tokenizer.json"))
        assert tokenizer.encode(" the", add_special_tokens=False).ids == [THE]
        assert tokenizer.token_to_id("<|30.00|>") == SEVERAL - 1

    def test_the_first_merge_is_put_back(self, library, tmp_path, capsys):
        place = write_json(tmp_path / "hf", SEVERAL, old=True, first=1)
        for name in ("config.json", "model.safetensors"):
            (place / name).write_bytes((library / name).read_bytes())
        for to in ("ctranslate2", "torch", "whisper"):
            assert main([str(place), str(tmp_path / to), "--to", to]) == 0
            assert capsys.readouterr().out.count("'Ġ t'") == 1
            inner = "vocabulary/tokenizer.json" if to == "torch" else "tokenizer.json"
            merges = json.loads((tmp_path / to / inner).read_text())["model"]["merges"]
            assert merges[:2] == ["Ġ t", "Ġ a"]
            account = json.loads((tmp_path / to / "conversion.json").read_text())["files"]
            assert account["tokenizer.json"]["what"] == "rewritten"

    def test_without_a_tokenizer_text_tokens_are_numbers(self, library, tmp_path, capsys):
        place = tmp_path / "hf"
        place.mkdir()
        for name in ("config.json", "model.safetensors"):
            (place / name).write_bytes((library / name).read_bytes())
        found = exported(place, tmp_path / "found")
        says(capsys.readouterr().out, "numbers", place, "no tokenizer.json")
        spelled = json.loads((found / "vocabulary.json").read_text())
        assert {spelled[index] for index in special(SEVERAL).values()} == set(special(SEVERAL))
        assert len(set(spelled)) == SEVERAL


class TestRefusals:
    def test_all_that_no_whisper_has_is_named_at_once(self, ours, tmp_path, capsys):
        changed = tmp_path / "changed"
        changed.mkdir()
        (changed / "model.safetensors").write_bytes((ours / "model.safetensors").read_bytes())
        content = json.loads((ours / "config.json").read_text())
        content["model"] |= {"activation": "relu", "norm_epsilon": 1e-6, "attention_scale": 1.0}
        (changed / "config.json").write_text(json.dumps(content))
        error = fail(capsys, changed, tmp_path / "out", *TO)
        for parts in (("activation", "relu"), ("norm_epsilon", 1e-6), ("attention_scale", 1.0)):
            says(error, *parts)
        assert "cannot be written for CTranslate2" in error and not (tmp_path / "out").exists()

    def test_another_vocabulary(self, tmp_path, capsys):
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        sizes = {"vocab_size": 97, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
        sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 5}
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 90)
        config = WhisperConfig(**sizes, **ids, decoder_start_token_id=91)
        WhisperForConditionalGeneration(config).save_pretrained(tmp_path / "hf")
        capsys.readouterr()
        says(fail(capsys, tmp_path / "hf", tmp_path / "out", *TO), "97 tokens", "51865")


def test_both_folders_hear_the_same(library, tmp_path):
    """The converter's folder has the same config.json where transformers' says how to generate."""
    told = tmp_path / "told"
    assert main([str(library), str(told), "--to", "whisper"]) == 0
    assert (told / "generation_config.json").is_file()
    ask("convert_whisper", str(told), str(tmp_path / "theirs"))
    found, features = exported(library, tmp_path / "found"), tmp_path / "features.npy"
    folders = [str(found), str(tmp_path / "theirs")]
    configs = [json.loads((Path(folder) / "config.json").read_text()) for folder in folders]
    assert configs[0] == configs[1]
    np.save(features, np.random.default_rng(0).normal(size=(1, 5, 3000)).astype(np.float32))
    prompt = list(SpeechTokens.of(SEVERAL).prompt("de"))
    one, other = ask("heard", folders, str(features), prompt, 12)
    assert len(one[0][0]) > 3 and one == other


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_real_weights_write_the_same_text(name, tmp_path):
    """Of a recording, by CTranslate2's own search, from the original and from what is written."""
    folder = real_whisper(name)
    recording = pytest.importorskip("training_recipe.sound.recordings").Recording
    sound = pytest.importorskip("recording_cases").recordings() / "english.wav"
    features, frames = recording(sound, 80).window(0)
    assert frames > 50
    np.save(tmp_path / "features.npy", np.ascontiguousarray(features.T[None], np.float32))
    assert main([str(folder), str(tmp_path / "ours"), "--to", "torch"]) == 0
    found = exported(tmp_path / "ours", tmp_path / "out", "--quantization", "float16")
    prompt = list(SpeechTokens.of(SIZES[name]).prompt("en"))
    folders, features = [str(found), str(folder)], str(tmp_path / "features.npy")
    one, other = ask("heard", folders, features, prompt, 40)
    assert one == other
    text = SpeechTokenizer.load(found, SIZES[name]).decode(one[0][0])
    assert text == " 1, 2, 3."


@pytest.mark.parametrize("name", SIZES)
def test_real_weights_there_and_back(name, tmp_path):
    """float16 in, float16 out: the same file but for two scalars that 4.8 adds."""
    folder = real_whisper(name)
    assert main([str(folder), str(tmp_path / "ours"), "--to", "torch"]) == 0
    found = exported(tmp_path / "ours", tmp_path / "out", "--quantization", "float16")
    assert same_variables(found, folder, lacking=2) == {"tiny.en": 150, "base": 214}[name]
    configs = [json.loads((place / "config.json").read_text()) for place in (found, folder)]
    assert configs[0] == configs[1]
    listed = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert json.loads((found / "vocabulary.json").read_text()) == listed
