"""Decoding of features in both twins: prompts, timestamps, and what is heard once and read often.

That it is what transformers does: its WhisperForConditionalGeneration with the same weights.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from decoding_cases import FOREIGN, PLAIN, SOURCE, assert_same, random_weights
from decoding_cases import flax_model as flax_of
from decoding_cases import torch_model as torch_of
from hearing_cases import (
    BEAM,
    END,
    GREEDY,
    LENGTH,
    PROMPTS,
    SEARCHES,
    SPEECH,
    STAMPS,
    START,
    TIMES,
    WITHOUT,
    V,
    generated,
    twins,
    whisper,
    windows,
)
from messages import saying

import flax_transformer
import torch_transformer
from flax_transformer import decoding as flax_decoding
from flax_transformer.processors import timed as flax_timed
from torch_transformer import decoding as torch_decoding
from torch_transformer.processors import timed as torch_timed
from training_recipe.searching.published import load_search, save_search
from training_recipe.searching.search import Search
from transformer_spec import UserError

pytestmark = pytest.mark.usefixtures("float64", "quick_compiling")
TWINS = {"torch": torch_transformer, "flax": flax_transformer}
DECODE = {"torch": torch_decoding.decode, "flax": flax_decoding.decode}
MODEL = {"torch": torch_of, "flax": flax_of}
FEATURES = windows(8)
both_named = pytest.mark.parametrize("name", TWINS)


@pytest.fixture(scope="module")
def theirs():
    return whisper()


@pytest.fixture(scope="module")
def models(theirs):
    with jax.enable_x64(True):
        return dict(zip(TWINS, twins(theirs), strict=True))


@pytest.fixture
def heard(models):
    return {name: TWINS[name].hear(model, FEATURES) for name, model in models.items()}


def ids_of(found):
    return [one.ids for row in found for one in row]


def with_prompt(search, name):
    return dataclasses.replace(search, prompt=PROMPTS[name])


def total(logits, prompt, written):
    """The log probability of what is written behind a prompt, of logits (T, V) of all of it."""
    table = torch.log_softmax(logits, -1)
    return sum(float(table[len(prompt) - 1 + at, token]) for at, token in enumerate(written))


class TestAgainstTransformers:
    @pytest.mark.parametrize("name", PROMPTS)
    def test_logits(self, name, theirs, heard):
        prompt = torch.tensor([PROMPTS[name]] * len(FEATURES))
        features = torch.from_numpy(FEATURES).transpose(1, 2)
        with torch.no_grad():
            expected = theirs(input_features=features, decoder_input_ids=prompt).logits.numpy()
        for ours in heard.values():
            found = ours.logits(PROMPTS[name])
            assert found.shape == expected.shape and expected.std() > 0.5
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)

    @pytest.mark.parametrize("prompt", PROMPTS)
    @pytest.mark.parametrize("name", SEARCHES)
    def test_torch_writes_the_same(self, name, prompt, theirs, heard):
        search = with_prompt(SEARCHES[name], prompt)
        expected = generated(theirs, FEATURES, search)
        assert ids_of(heard["torch"].decode(search)) == expected
        assert len({tuple(ids) for ids in expected}) > len(FEATURES) // 2

    @pytest.mark.parametrize(
        "name, prompt",
        [
            pytest.param(
                name,
                prompt,
                marks=()
                if (name, prompt)
                in [("greedy, timestamps", "previous text"), ("beam, settings", "language")]
                else pytest.mark.thorough,
            )
            for name in SEARCHES
            for prompt in PROMPTS
        ],
    )
    def test_flax_writes_the_same(self, name, prompt, heard):
        search = with_prompt(SEARCHES[name], prompt)
        assert_same(heard["flax"].decode(search), heard["torch"].decode(search))

    def test_outputs_end(self, heard):
        found = heard["torch"].decode(with_prompt(SEARCHES["greedy, timestamps"], "language"))
        ended = {row[0].ended for row in found}
        assert ended == {True, False}
        assert all(row[0].ids[0] in range(STAMPS, STAMPS + 10) for row in found)


class TestTimestamps:
    @pytest.mark.parametrize("column", [0, 1, 2, 5])
    def test_rules(self, column):
        """Those of transformers' processor, for histories with and without timestamps."""
        from transformers import GenerationConfig
        from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

        draw, L, rows = np.random.default_rng(column), 7, 400
        tokens = draw.integers(0, V, (rows, L))
        tokens = np.where(draw.random((rows, L)) < 0.5, tokens, draw.integers(STAMPS, V, (rows, L)))
        stamps = tokens >= STAMPS  # their newest is the last one, which never is an earlier time
        tokens[stamps] = np.maximum.accumulate(np.where(stamps, tokens, 0), 1)[stamps]
        scores = draw.normal(0, 2, (rows, V))
        config = GenerationConfig(
            no_timestamps_token_id=WITHOUT, eos_token_id=END, max_initial_timestamp_index=9
        )
        given = torch.from_numpy(tokens[:, :column]), torch.from_numpy(scores)
        expected = WhisperTimeStampLogitsProcessor(config, 0)(*given).numpy()
        found = torch_timed(given[1], torch.from_numpy(tokens[:, None]), TIMES, column)
        np.testing.assert_array_equal(found.numpy(), expected)
        at = jnp.asarray(column)
        found = flax_timed(jnp.asarray(scores), jnp.asarray(tokens[:, None]), TIMES, at)
        np.testing.assert_array_equal(np.asarray(found), expected)

    def test_any_first_one(self, heard):
        times = dataclasses.replace(TIMES, latest_first=None)
        first = []
        for rules in (TIMES, times):
            search = dataclasses.replace(GREEDY, timestamps=rules, prompt=(START,))
            first.append([row[0].ids[0] for row in heard["torch"].decode(search)])
        assert max(first[0]) <= STAMPS + 9 < max(first[1])


class TestHeard:
    @both_named
    def test_rows(self, name, heard, models):
        """Some rows alone, in any order, have the outputs that all have together."""
        search = with_prompt(SEARCHES["greedy, timestamps"], "language")
        ours, every = heard[name], heard[name].decode(search)
        assert_same(DECODE[name](models[name], FEATURES, search), every)
        for rows in ([4], [7, 0, 7, 1, 2]):
            assert_same(ours.decode(search, rows), [every[row] for row in rows])
        assert ours.decode(search, []) == []

    def test_encodes_once(self, models, monkeypatch):
        encoded = []
        model, encode = models["torch"], models["torch"].encoder_states
        note = lambda *given: encoded.append(1) or encode(*given)  # noqa: E731
        monkeypatch.setattr(model, "encoder_states", note)
        ours = torch_transformer.hear(model, FEATURES)
        for search in (GREEDY, dataclasses.replace(BEAM, prompt=PROMPTS["language"])):
            assert ours.decode(search) == ours.decode(search)
        assert ours.logits((START,)).shape == (8, 1, V) and encoded == [1]

    def test_a_longer_prompt_is_no_other_search(self, heard):
        """Programs are compiled for few lengths of prompts; that of the search for two."""
        search, seen = SEARCHES["greedy, timestamps"], []
        for length in (5, 6, 9):
            prompt = (67, *range(5, 3 + length), START)
            found = heard["flax"].decode(dataclasses.replace(search, prompt=prompt))
            assert len(prompt) + max(len(row[0].ids) + row[0].ended for row in found) <= LENGTH
            seen.append(flax_decoding.compiled_for_processor._cache_size())
        assert seen[0] == seen[1] == seen[2]

    @both_named
    def test_samples(self, name, heard):
        """A sample depends on its features, the seed and what it began with, on no other row."""
        search = dataclasses.replace(
            with_prompt(GREEDY, "language"), sample=True, temperature=0.8, seed=3, timestamps=TIMES
        )
        found = heard[name].decode(search)
        assert_same(heard["torch"].decode(search), found)
        assert_same(heard[name].decode(search, [5]), [found[5]])
        assert ids_of(found) != ids_of(heard[name].decode(dataclasses.replace(search, seed=4)))


class TestPrompts:
    """Cached and not: the sum of a full pass over the prompt and what is written behind it."""

    @both_named
    def test_of_features(self, name, models):
        """The exact rule sees no padding, in a prompt as little as elsewhere."""
        for search in (Search(), Search(beam=3, nbest=2)):
            search = with_prompt(search, "previous text")
            assert search.prompt.count(SPEECH.pad_id) == 1
            self.check(name, models, FEATURES[:3], search, LENGTH)

    @both_named
    @pytest.mark.parametrize(
        "config",
        [pytest.param(PLAIN, marks=pytest.mark.thorough), FOREIGN],
        ids=["plain", "foreign"],
    )
    def test_of_tokens(self, name, config):
        weights = random_weights(config, 1, 0.6)
        models = {kind: MODEL[kind](config, weights) for kind in {name, "torch"}}
        search = Search(beam=3, nbest=2, prompt=(5, 9, config.pad_id, 10, 6))
        self.check(name, models, SOURCE[[0, 1, 3]], search, 17)

    def check(self, name, models, source, search, longest):
        found, full = DECODE[name](models[name], source, search), models["torch"]
        for row, outputs in zip(source, found, strict=True):
            for one in outputs:
                written = [*one.ids, *[full.config.eos_id] * one.ended]
                tokens = torch.tensor([[*search.prompt, *written[:-1]]])
                with torch.no_grad():
                    logits = full(full.as_source(row[None]), tokens)[0]
                expected = total(logits, search.prompt, written)
                assert one.log_probability == pytest.approx(expected, rel=0, abs=1e-11)
                assert len(search.prompt) + len(written) <= longest

    @both_named
    def test_a_prompt_of_the_start_token_is_none(self, name, models):
        """But for the length, of which a prompt takes its part."""
        plain = dataclasses.replace(GREEDY, max_length=6)
        found = [
            DECODE[name](models[name], FEATURES, dataclasses.replace(plain, prompt=prompt))
            for prompt in ((), (START,))
        ]
        assert_same(*found)


class TestFaults:
    @both_named
    @pytest.mark.parametrize(
        "changes, parts",
        [
            ({"prompt": (START, V)}, ("prompt", V)),
            ({"prompt": (START, -1)}, ("prompt", -1)),
            ({"prompt": [START]}, ("prompt", "tuple")),
            ({"prompt": (START,) * LENGTH}, ("prompt", LENGTH)),
            ({"prompt": (START,), "start_id": 3}, ("start_id", "prompt")),
            ({"encoder_no_repeat_ngram_size": 2}, ("encoder_no_repeat_ngram_size", "features")),
            ({"encoder_repetition_penalty": 1.1}, ("encoder_repetition_penalty", "features")),
            ({"timestamps": TIMES, "rule": "exact"}, ("timestamps", "generate")),
            ({"timestamps": 7}, ("timestamps", 7)),
            ({"timestamps": dataclasses.replace(TIMES, first=V)}, ("timestamps.first", V)),
            ({"timestamps": dataclasses.replace(TIMES, end=True)}, ("timestamps.end", True)),
            ({"timestamps": dataclasses.replace(TIMES, latest_first=-1)}, ("latest_first", -1)),
        ],
    )
    def test_of_searches(self, name, changes, parts, models, heard):
        search = Search(**{"rule": "generate", **changes})
        for decode in (
            heard[name].decode,
            lambda given: DECODE[name](models[name], FEATURES, given),
        ):
            with pytest.raises(UserError, check=saying(*parts)):
                decode(search)

    @both_named
    def test_of_what_is_heard(self, name, models, heard):
        hear = TWINS[name].hear
        for features in (FEATURES[0], FEATURES[:, :, :4], FEATURES.astype(int), [[1.0]]):
            with pytest.raises(UserError, check=saying("features", "floats")):
                hear(models[name], features)
        with pytest.raises(UserError, match="at most 14 frames"):
            hear(models[name], np.zeros((1, 15, 5)))
        with pytest.raises(UserError, match="tokens"):
            hear(MODEL[name](PLAIN, random_weights(PLAIN, 0)), FEATURES)
        with pytest.raises(UserError, check=saying("row", 8)):
            heard[name].decode(GREEDY, [0, 8])
        with pytest.raises(UserError, check=saying("prompt", V)):
            heard[name].logits((V,))


def test_searches_are_saved_with_their_timestamps(tmp_path):
    place = tmp_path / "search.json"
    search = dataclasses.replace(GREEDY, timestamps=TIMES, prompt=PROMPTS["language"])
    save_search(search, place)
    assert load_search(place, SPEECH) == search
    place.write_text(place.read_text().replace('"without"', '"within"'))
    with pytest.raises(UserError, match="timestamps.without") as error:
        load_search(place, SPEECH)
    assert "timestamps.within" in str(error.value)
