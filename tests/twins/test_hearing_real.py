"""What both twins write of real recordings with real weights: what CTranslate2 writes of them."""

import json
import wave

import numpy as np
import pytest
import torch
from folders_of_hub import SHARED
from real_whispers import real_whisper

import flax_transformer
import torch_transformer
from convert.conversion.opening import open_model
from training_recipe.searching.search import Search
from training_recipe.searching.timestamps import Timestamps
from training_recipe.speech.tokens import SpeechTokens
from transformer_spec import to_flax

RATE = 16000
SPEECH = SHARED / "data" / "speech"

pytestmark = pytest.mark.thorough


def recording(name):
    """The samples (n,) of a file of 16-bit numbers, at 16 kHz."""
    if not (SPEECH / name).is_file():
        pytest.skip(f"{SPEECH / name}, which this test hears, is not here")
    with wave.open(str(SPEECH / name)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
        rate, channels = file.getframerate(), file.getnchannels()
    samples = samples.reshape(-1, channels).mean(1)
    seconds = np.arange(len(samples) * RATE // rate) / RATE
    return np.interp(seconds, np.arange(len(samples)) / rate, samples).astype(np.float32)


def features():
    """(B, W, M) of all recordings that the standard library reads."""
    from transformers import WhisperFeatureExtractor

    sounds = [recording(name) for name in ("english.wav", "stereo.wav")]
    found = WhisperFeatureExtractor()(sounds, sampling_rate=RATE, return_tensors="np")
    return np.ascontiguousarray(found["input_features"].transpose(0, 2, 1))


def twin_of(name, opened):
    weights = {key: array.astype(np.float32) for key, array in opened.weights().items()}
    if name == "torch":
        model = torch_transformer.Transformer(opened.config, None)
        torch_transformer.load_weights(model, weights)
        return torch_transformer, model
    model = flax_transformer.Transformer(opened.config, None)
    flax_transformer.load_weights(model, dict(to_flax(*item) for item in weights.items()))
    return flax_transformer, model


@pytest.mark.parametrize("twin", ["torch", "flax"])
@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_greedy_is_that_of_ctranslate2(name, twin):
    folder, heard_of = real_whisper(name), features()
    ctranslate2 = pytest.importorskip("ctranslate2")
    theirs = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    given = np.ascontiguousarray(heard_of.transpose(0, 2, 1))
    opened, settings = open_model(folder), json.loads((folder / "config.json").read_text())
    package, model = twin_of(twin, opened)
    heard, tokens = package.hear(model, heard_of), SpeechTokens.of(opened.config.target_vocab_size)
    asked = ("en", "transcribe") if tokens.multilingual else (None, None)
    times = Timestamps(tokens.first_timestamp, tokens.no_timestamps, tokens.end)
    for timestamps in (None, times):
        search = Search(
            rule="generate", prompt=tokens.prompt(*asked, timestamps is not None),
            suppressed=tuple(settings["suppress_ids"]), timestamps=timestamps,
            suppressed_first=tuple(settings["suppress_ids_begin"]),
        )  # fmt: skip
        prompts = [list(search.prompt)] * len(heard_of)
        view = ctranslate2.StorageView.from_array(given)
        expected = theirs.generate(view, prompts, beam_size=1, max_initial_timestamp_index=50)
        found = [row[0].ids for row in heard.decode(search)]
        assert found == [one.sequences_ids[0] for one in expected]
        assert all(len(ids) > 2 for ids in found) and len(found) == 2


@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_the_language(twin):
    """What is likeliest behind the start token alone, of those that stand for languages."""
    opened = open_model(real_whisper("base"))
    package, model = twin_of(twin, opened)
    tokens = SpeechTokens.of(opened.config.target_vocab_size)
    logits = package.hear(model, features()[:1]).logits((tokens.start,))[0, 0]
    first = tokens.first_language
    of_languages = torch.from_numpy(logits[first : first + len(tokens.languages)]).softmax(0)
    assert tokens.languages[int(of_languages.argmax())] == "en" and of_languages.max() > 0.5
