"""Generation settings of the Hub as a search and back, and the file that keeps a search."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from messages import saying

from training_recipe.searching.published import (
    ALL,
    generation_part,
    generation_settings,
    load_search,
    read_generation,
    save_search,
)
from training_recipe.searching.search import Search, check_search
from transformer_spec import TransformerConfig, UserError

CONFIG = TransformerConfig(
    source_vocab_size=50, target_vocab_size=50, hidden_dim=6, inner_dim=7, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1, max_length=64, pad_id=1, unk_id=3, bos_id=0,
    eos_id=2, decoder_start_id=2,
)  # fmt: skip
BART = {
    "_from_model_config": True, "bos_token_id": 0, "decoder_start_token_id": 2,
    "early_stopping": True, "eos_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2,
    "length_penalty": 2.0, "max_length": 60, "min_length": 6, "no_repeat_ngram_size": 3,
    "num_beams": 4, "pad_token_id": 1, "transformers_version": "4.27.0.dev0",
}  # fmt: skip
OF_BART = Search(
    rule="generate", beam=4, length_penalty=2.0, max_length=59, min_length=5, early_stopping=True,
    forced_first_id=0, forced_last_id=2, no_repeat_ngram_size=3,
)  # fmt: skip
LONG = {"max_length": 20}
# A value of each field that is not the usual one.
CHANGED = {
    "beam": 5, "length_penalty": 0.6, "nbest": 3, "temperature": 0.7, "top_k": 9,
    "early_stopping": "never", "min_length": 4, "no_repeat_ngram_size": 2,
    "repetition_penalty": 1.2, "banned": ((4,), (5, 6, 7)), "renormalize": True,
    "forced_first_id": 8, "forced_last_id": 2, "suppressed": (9, 10), "suppressed_first": (11,),
    "start_id": 12, "end_ids": (2, 13), "encoder_no_repeat_ngram_size": 3,
    "encoder_repetition_penalty": 0.9, "exponential_decay_length_penalty": (5, 1.1), "top_p": 0.9,
}  # fmt: skip


def read(settings: dict[str, Any]) -> tuple[Search, list[str]]:
    return read_generation(settings, CONFIG, "generation_config.json")


def refused(settings: dict[str, Any], *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        read(settings)
    said = str(caught.value)
    assert [part for part in ("generation_config.json", *parts) if part not in said] == []


class TestReading:
    def test_a_folder_s(self) -> None:
        assert read(BART) == (OF_BART, [])

    def test_what_is_absent_is_what_generate_does_without(self) -> None:
        search, notes = read({})
        assert search == Search(rule="generate", max_length=20)
        assert notes == [
            "generation_config.json has no max_length; "
            "outputs have at most 20 tokens, as generate writes then"
        ]
        assert read({"max_length": None, "num_beams": None}) == (search, notes)

    def test_lengths_count_what_is_written(self) -> None:
        search, notes = read({"max_length": 9, "min_length": 4})
        assert (search.max_length, search.min_length, notes) == (8, 3, [])
        new = {"max_new_tokens": 9, "min_new_tokens": 4}
        for other in ({}, {"max_length": 30, "min_length": 8}):
            search, notes = read(new | other)
            assert (search.max_length, search.min_length, notes) == (9, 4, [])

    def test_drawing(self) -> None:
        drawn = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "num_return_sequences": 3}
        search, notes = read(LONG | drawn)
        assert search == Search(
            rule="generate", max_length=19, sample=True, temperature=0.6, top_p=0.9, top_k=50,
            nbest=3,
        ) and not notes  # fmt: skip
        assert read(LONG | drawn | {"top_k": 0})[0].top_k == 0
        search, notes = read(LONG | {"do_sample": True, "num_beams": 4})
        assert not search.sample and search.beam == 4
        assert notes == [
            "generation_config.json: do_sample true is not honoured; "
            "a beam search draws nothing here"
        ]

    def test_the_config_s_own_ids_are_nothing_new(self) -> None:
        given = {"eos_token_id": [2], "decoder_start_token_id": 2, "forced_eos_token_id": [2]}
        assert read(LONG | given)[0] == Search(rule="generate", max_length=19, forced_last_id=2)
        given = {"eos_token_id": [2, 7], "decoder_start_token_id": 7}
        changed = Search(rule="generate", max_length=19, end_ids=(2, 7), start_id=7)
        assert read(LONG | given)[0] == changed

    def test_the_first_bart_models_force_bos(self) -> None:
        old = LONG | {"force_bos_token_to_be_generated": True, "bos_token_id": 0}
        assert read(old | {"decoder_start_token_id": 2})[0].forced_first_id == 0

    def test_a_start_that_generate_would_guess(self) -> None:
        search, notes = read(LONG | {"bos_token_id": 0})
        assert search.start_id is None
        assert "no decoder_start_token_id" in notes[0] and "not bos_token_id 0" in notes[0]

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"penalty_alpha": 0.6}, "penalty_alpha 0.6"),
            ({"num_beam_groups": 2, "num_beams": 4}, "num_beam_groups 2"),
            ({"sequence_bias": [[[4], -1.0]]}, "sequence_bias [[[4], -1.0]]"),
            ({"do_sample": True, "typical_p": 0.9}, "typical_p 0.9"),
            ({"max_time": 3.0}, "max_time 3.0"),
            ({"my_own": "x" * 200}, 'my_own "xxx'),
            ({"forced_eos_token_id": [2, 3]}, "forced_eos_token_id [2, 3]"),
            ({"num_return_sequences": 3}, "num_return_sequences 3"),
        ],
        ids=str,
    )
    def test_what_is_not_honoured_is_said(self, given, told) -> None:
        search, (note,) = read(LONG | given)
        assert note.startswith(f"generation_config.json: {told}") and "is not honoured" in note
        assert len(note) < 200 and check_search(search, CONFIG) is None

    def test_what_changes_nothing_is_not_said(self) -> None:
        quiet = {"use_cache": True, "typical_p": 0.9, "num_beam_groups": 1, "penalty_alpha": 0.0}
        quiet |= {"remove_invalid_values": True, "guidance_scale": 1.0, "output_scores": False}
        assert read(LONG | quiet) == read(LONG)

    def test_every_key_of_the_library_is_known(self) -> None:
        transformers = pytest.importorskip("transformers")
        keys = {key for key in vars(transformers.GenerationConfig()) if not key.startswith("_")}
        assert keys - ALL == set()

    def test_all_wrong_types_at_once(self) -> None:
        wrong = {"num_beams": "4", "early_stopping": 1, "bad_words_ids": [4], "max_length": True}
        wrong |= {"length_penalty": [1], "eos_token_id": "2", "do_sample": "yes"}
        refused(wrong, "7 faults", *(f"{key} is " for key in wrong))

    def test_faults_have_the_file_s_names(self) -> None:
        refused({"max_length": 1, "num_beams": 0}, "max_length is 1", "2", "num_beams is 0")
        refused(LONG | {"forced_bos_token_id": 50}, "forced_bos_token_id is 50", "50 tokens")
        refused(LONG | {"bad_words_ids": [[4, 99]]}, "bad_words_ids is 99", "50 tokens")
        refused({"max_new_tokens": 0}, "max_new_tokens is 0", "at least 1")
        refused(LONG | {"repetition_penalty": 0}, "repetition_penalty is 0", "above 0")

    def test_a_token_that_is_forced_and_suppressed(self) -> None:
        both = {"forced_bos_token_id": 8, "suppress_tokens": [7, 8]}
        refused(LONG | both, "forced_bos_token_id is 8", "suppressed")

    def test_a_hundred_faults_of_a_kind_are_counted(self) -> None:
        refused(LONG | {"suppress_tokens": list(range(100, 200))}, "and 97 more of suppress_tokens")

    def test_the_part_of_an_old_config(self) -> None:
        old = {"d_model": 6, "num_beams": 4, "max_length": 30, "task_specific_params": {"a": 1}}
        assert generation_part(old) == {"num_beams": 4, "max_length": 30}


class TestWriting:
    @pytest.mark.parametrize("name", CHANGED)
    def test_read_back(self, name) -> None:
        change = {name: CHANGED[name]} | ({"beam": 3} if name == "nbest" else {})
        search = Search(rule="generate", max_length=30, **change)
        assert read(generation_settings(search, CONFIG)) == (search, [])

    def test_read_back_all(self) -> None:
        search = Search(rule="generate", max_length=30, **CHANGED)
        written = json.loads(json.dumps(generation_settings(search, CONFIG)))
        assert read(written) == (search, [])
        drawn = Search(rule="generate", max_length=30, sample=True, nbest=4, top_k=0)
        assert read(generation_settings(drawn, CONFIG)) == (drawn, [])

    def test_a_folder_s_settings_come_back(self) -> None:
        written = generation_settings(OF_BART, CONFIG)
        gone = {"_from_model_config", "transformers_version"}
        assert written == {key: value for key, value in BART.items() if key not in gone}

    def test_the_exact_rule(self) -> None:
        """The nearest: what is never written is banned, nothing better is left out."""
        written = generation_settings(Search(beam=5, length_penalty=0.6), CONFIG)
        assert written == {
            "bad_words_ids": [[0], [1]], "bos_token_id": 0, "decoder_start_token_id": 2,
            "early_stopping": "never", "eos_token_id": 2, "length_penalty": 0.6, "max_length": 65,
            "num_beams": 5, "pad_token_id": 1,
        }  # fmt: skip

    def test_the_library_takes_it(self) -> None:
        transformers = pytest.importorskip("transformers")
        written = generation_settings(OF_BART, CONFIG)
        taken = transformers.GenerationConfig(**written).to_diff_dict()
        assert {key: taken[key] for key in written} == written


class TestFile:
    def test_there_and_back(self, tmp_path) -> None:
        path = tmp_path / "search.json"
        every = Search(rule="generate", max_length=30, **CHANGED)
        for search in (Search(), OF_BART, every, Search(sample=True, seed=4)):
            save_search(search, path)
            assert load_search(path) == search and hash(load_search(path)) == hash(search)
        save_search(OF_BART, path)
        content = json.loads(path.read_text())
        assert content["format_version"] == 1 and "seed" not in content
        assert content["max_length"] == 59 and content["rule"] == "generate"

    @pytest.mark.parametrize(
        ("content", "parts"),
        [
            ("{", ["damaged"]),
            ("[]", ["no JSON object"]),
            ("{}", ["format_version null", "reads 1"]),
            ('{"format_version": 2}', ["format_version 2", "reads 1"]),
            ('{"format_version": 1, "beams": 4}', ["unknown key 'beams'", "did you mean beam?"]),
            ('{"format_version": 1, "beam": "4", "rule": 3}', ["2 faults", "beam", "rule is 3"]),
            ('{"format_version": 1, "min_length": 4}', ["min_length is 4", "rule generate"]),
            ('{"format_version": 1, "rule": "genrate"}', ["did you mean generate?"]),
        ],
        ids=str,
    )
    def test_damaged(self, tmp_path, content, parts) -> None:
        path = tmp_path / "search.json"
        path.write_text(content)
        with pytest.raises(UserError) as caught:
            load_search(path)
        assert [part for part in (str(path), *parts) if part not in str(caught.value)] == []

    def test_missing(self, tmp_path) -> None:
        with pytest.raises(UserError, match="search.json does not exist"):
            load_search(tmp_path / "search.json")


class TestChecks:
    def test_what_only_generate_knows(self) -> None:
        both = {"beam", "length_penalty", "nbest", "temperature", "top_k"}
        own = {name: CHANGED[name] for name in CHANGED.keys() - both}
        with pytest.raises(UserError) as caught:
            check_search(Search(**own))
        named = {fault.split(" ", 1)[0] for fault in caught.value.faults}
        assert named == own.keys() - {"start_id", "forced_first_id"}

    @pytest.mark.parametrize(
        "wrong",
        [
            {"banned": [[4]]}, {"banned": ((),)}, {"suppressed": 4}, {"end_ids": (2.5,)},
            {"renormalize": 1}, {"early_stopping": "always"}, {"start_id": True},
            {"exponential_decay_length_penalty": (1,)}, {"top_p": "x"}, {"min_length": None},
            {"min_length": -1}, {"top_p": 1.5}, {"repetition_penalty": np.nan},
            {"exponential_decay_length_penalty": (-1, 2)}, {"start_id": -1}, {"banned": ((-4,),)},
        ],
        ids=str,
    )  # fmt: skip
    def test_each_is_named(self, wrong) -> None:
        ((name, _),) = wrong.items()
        with pytest.raises(UserError, check=saying(f"{name} is")):
            check_search(dataclasses.replace(Search(rule="generate"), **wrong))
