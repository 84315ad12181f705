"""What lies beside a Whisper's weights: carried byte by byte, or written by rule where absent."""

import json
from pathlib import Path

import pytest
from convert_cases import convert
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperProcessor,
    WhisperTokenizerFast,
)
from whisper_cases import OF_OPENAI, build, save_openai

from training_recipe.speech.alignment import PUBLISHED, alignment_heads, foreign_heads
from training_recipe.speech.settings import generation_settings, preprocessor_settings
from training_recipe.speech.tokens import ENGLISH, MULTILINGUAL, SpeechTokens, suppressed
from transformer_spec import TransformerConfig

LEDGER = "conversion.json"
GENERATION, PREPROCESSOR = "generation_config.json", "preprocessor_config.json"
SMALL = {"max_source_positions": 1500, "max_target_positions": 448}


def of_vocabulary(size: int, **changes):
    """A tiny model with a published vocabulary and the windows of the published models."""
    tokens = SpeechTokens.of(size)
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), tokens.end)
    ids |= {"decoder_start_token_id": tokens.start, "vocab_size": size, "d_model": 4}
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    inner = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16)
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_mel_bins": 80}
    return build(**(ids | heads | inner | layers | SMALL | changes)).float()


@pytest.fixture(scope="module")
def small():
    return of_vocabulary(ENGLISH)


def tokenizer_file(path: Path, size: int) -> None:
    """Bytes as pieces, the names of the tokens that are no text behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.iterdir() if path.name != LEDGER)
    return {path.name: path.read_bytes() for path in files}


def whole_folder(model, folder: Path, old: bool) -> Path:
    """What the library writes of a model and its processor, in the older form or today's."""
    model.save_pretrained(folder)
    tokenizer_file(folder / "tokenizer.json", ENGLISH)
    if old:
        WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
        (folder / "normalizer.json").write_text('{"colour": "color"}')
    else:
        tokenizer = WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        extractor = WhisperFeatureExtractor(feature_size=80)
        WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    told = {"alignment_heads": [[1, 0], [0, 1]], "is_multilingual": False, "max_length": 448}
    GenerationConfig(**told, no_timestamps_token_id=50362).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("old", [True, False])
def test_every_file_comes_back(old, small, tmp_path, capsys):
    given = whole_folder(small, tmp_path / "given", old)
    extractor = PREPROCESSOR if old else "processor_config.json"
    assert (given / extractor).is_file() and not (
        old and (given / "processor_config.json").exists()
    )
    convert(given, tmp_path / "ours", "--to", "torch")
    said = capsys.readouterr().out
    assert "warning" not in said and "not honoured" not in said
    ours = tmp_path / "ours"
    for name in ("config.json", GENERATION, extractor):
        assert (ours / "original" / name).read_bytes() == (given / name).read_bytes()
    tokenizer = given.glob("*okenizer*.json")
    assert all((ours / "vocabulary" / path.name).is_file() for path in tokenizer)
    convert(ours, tmp_path / "back", "--to", "whisper")
    assert contents(tmp_path / "back") == contents(given)
    convert(ours, tmp_path / "flax", "--to", "whisper-flax")
    convert(tmp_path / "flax", tmp_path / "again", "--to", "whisper")
    assert contents(tmp_path / "again") == contents(given)
    capsys.readouterr()


def test_a_bare_folder_gets_what_the_library_reads(small, tmp_path, capsys):
    """By rule; the ids that are never written need a tokenizer."""
    small.save_pretrained(tmp_path / "given")
    (tmp_path / "given" / GENERATION).unlink()
    convert(tmp_path / "given", tmp_path / "back", "--to", "whisper")
    assert "written without suppress_tokens" in capsys.readouterr().out
    tokens = SpeechTokens.of(ENGLISH)
    written = json.loads((tmp_path / "back" / GENERATION).read_text())
    assert written == generation_settings(tokens, None, None) and "suppress_tokens" not in written
    assert GenerationConfig.from_pretrained(tmp_path / "back").begin_suppress_tokens == [220, 50256]
    made = WhisperFeatureExtractor.from_pretrained(tmp_path / "back").to_dict()
    expected = WhisperFeatureExtractor(feature_size=80).to_dict()
    assert made == expected and made == made | preprocessor_settings(80)
    files = json.loads((tmp_path / "back" / LEDGER).read_text())["files"]
    assert files[GENERATION] == {
        "what": "rewritten",
        "to": GENERATION,
        "from": "the sizes of the model",
    }


def test_with_a_tokenizer_the_suppressed_ids_are_written(small, tmp_path):
    given, tokens = tmp_path / "given", SpeechTokens.of(ENGLISH)
    small.save_pretrained(given)
    (given / GENERATION).unlink()
    tokenizer_file(given / "tokenizer.json", ENGLISH)
    convert(given, tmp_path / "ours", "--to", "torch")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper")
    encode = Tokenizer.from_file(str(given / "tokenizer.json")).encode
    expected = suppressed(tokens, lambda text: encode(text, add_special_tokens=False).ids)
    written = json.loads((tmp_path / "back" / GENERATION).read_text())
    assert written["suppress_tokens"] == list(expected) and len(expected) > 20


def test_a_search_that_was_changed_is_written_with_all_else(small, tmp_path):
    """The file's own padding, too, and not that of this house."""
    small.save_pretrained(tmp_path / "given")
    (tmp_path / "given" / GENERATION).unlink()
    convert(tmp_path / "given", tmp_path / "ours", "--to", "torch")
    search = json.loads((tmp_path / "ours" / "search.json").read_text())
    assert search["max_length"] == 447 and search["suppressed_first"] == [220, 50256]
    (tmp_path / "ours" / "search.json").write_text(json.dumps(search | {"beam": 5}))
    convert(tmp_path / "ours", tmp_path / "back", "--to", "whisper")
    written = json.loads((tmp_path / "back" / GENERATION).read_text())
    usual = generation_settings(SpeechTokens.of(ENGLISH), None, None)
    assert written == usual | {"num_beams": 5}


def test_openai_s_file_becomes_a_folder_that_the_library_reads(tmp_path):
    model = of_vocabulary(MULTILINGUAL, encoder_ffn_dim=16, decoder_ffn_dim=16)
    file = save_openai(model, tmp_path / "given.pt", model.dtype)
    convert(file, tmp_path / "theirs", "--to", "whisper")
    written = json.loads((tmp_path / "theirs" / GENERATION).read_text())
    tokens = SpeechTokens.of(MULTILINGUAL)
    assert written == generation_settings(tokens, None, None)
    assert written["lang_to_id"]["<|fr|>"] == 50265 and len(written["lang_to_id"]) == 99
    assert written["task_to_id"] == {"translate": 50358, "transcribe": 50359}
    assert written["pad_token_id"] == 50257 == written["eos_token_id"]
    assert "forced_decoder_ids" not in written and written["task"] == "transcribe"
    settings = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert settings["pad_token_id"] == 50257 and settings["decoder_start_token_id"] == 50258


def test_other_vocabularies_and_windows_get_nothing(tmp_path, capsys):
    model = build(**OF_OPENAI)
    model.save_pretrained(tmp_path / "given")
    (tmp_path / "given" / GENERATION).unlink()
    convert(tmp_path / "given", tmp_path / "back", "--to", "whisper")
    assert set(contents(tmp_path / "back")) == {"config.json", "model.safetensors"}
    other = of_vocabulary(ENGLISH, max_source_positions=7)
    other.save_pretrained(tmp_path / "short")
    convert(tmp_path / "short", tmp_path / "short-back", "--to", "whisper")
    assert not (tmp_path / "short-back" / PREPROCESSOR).exists()
    assert "7 positions are not those of a window of 30 seconds" in capsys.readouterr().out


def test_files_that_contradict_the_model_are_told(small, tmp_path, capsys):
    given = whole_folder(small, tmp_path / "given", True)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(given)
    told = {"alignment_heads": [[1, 0], [25, 6]], "max_length": 448}
    GenerationConfig(**told).save_pretrained(given)
    convert(given, tmp_path / "ours", "--to", "torch")
    said = capsys.readouterr().out
    assert "says feature_size 128, and the model takes 80 numbers a frame" in said
    assert "alignment_heads [[25, 6]] are of layers or heads that the model does not have" in said


def config_of(D: int, H: int, layers: tuple[int, int], size: int) -> TransformerConfig:
    return TransformerConfig(
        source_vocab_size=0, target_vocab_size=size, hidden_dim=D, inner_dim=4 * D, num_heads=H,
        num_encoder_layers=layers[0], num_decoder_layers=layers[1], max_length=448,
        max_source_length=1500, feature_dim=80, norm_position="pre",
    )  # fmt: skip


def test_heads_that_follow_the_sound_by_a_model_s_shape():
    for (D, encoder, decoder, size), text in PUBLISHED.items():
        config = config_of(D, D // 64, (encoder, decoder), size)
        heads = alignment_heads(config)
        assert heads is not None and len(heads) == len(text.split())
        assert foreign_heads(heads, config) == []
    tiny = config_of(384, 6, (4, 4), ENGLISH)
    assert alignment_heads(tiny)[:3] == [[1, 0], [2, 0], [2, 5]]
    turbo = config_of(1280, 20, (32, 4), 51866)
    assert alignment_heads(turbo)[1] == [2, 11]
    for shape in ((1280, 32, 32, MULTILINGUAL), (768, 12, 4, ENGLISH), (1280, 32, 2, 51866)):
        D, encoder, decoder, size = shape
        assert alignment_heads(config_of(D, D // 64, (encoder, decoder), size)) is None
    odd = [[0, 6], [4, 0], [3, 5], "x", [1]]
    assert foreign_heads(odd, tiny) == [[0, 6], [4, 0], "x", [1]]
