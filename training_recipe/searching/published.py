"""The search that a model was published with: generation_config.json, and search.json of our own.

What the keys mean is in transformers' generation/configuration_utils.py, with their defaults.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training_recipe.files.json_files import read_json, write_json
from training_recipe.searching.checks import is_number, is_whole
from training_recipe.searching.search import GENERATE, Search, check_search, never_produced
from training_recipe.searching.timestamps import Timestamps
from transformer_spec import TransformerConfig, UserError
from transformer_spec.errors import Faults, closest, printable_name

FORMAT_VERSION = 1
USUAL_LENGTH = 20  # new tokens
USUAL_TOP_K = 50
LONGEST_SHOWN = 60

# Keys that are fields of a search as they stand, and their names there.
FIELDS = {
    "num_beams": "beam",
    "length_penalty": "length_penalty",
    "early_stopping": "early_stopping",
    "temperature": "temperature",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
    "repetition_penalty": "repetition_penalty",
    "renormalize_logits": "renormalize",
    "forced_bos_token_id": "forced_first_id",
    "encoder_no_repeat_ngram_size": "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty": "encoder_repetition_penalty",
    "top_p": "top_p",
}
# Keys that are read and written otherwise, and the field of which they speak.
OTHERS = {
    "max_length": "max_length",
    "max_new_tokens": "max_length",
    "min_length": "min_length",
    "min_new_tokens": "min_length",
    "do_sample": "sample",
    "top_k": "top_k",
    "num_return_sequences": "nbest",
    "bad_words_ids": "banned",
    "forced_eos_token_id": "forced_last_id",
    "suppress_tokens": "suppressed",
    "begin_suppress_tokens": "suppressed_first",
    "decoder_start_token_id": "start_id",
    "eos_token_id": "end_ids",
    "exponential_decay_length_penalty": "exponential_decay_length_penalty",
    "force_bos_token_to_be_generated": "forced_first_id",
}
# What changes no output: names, memory, speed, what else is returned, values that are not finite.
HARMLESS = {
    "_from_model_config", "_commit_hash", "transformers_version", "pad_token_id", "bos_token_id",
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "return_legacy_cache",
    "low_memory", "prefill_chunk_size", "compile_config", "disable_compile", "output_attentions",
    "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
    "continuous_batching_config", "remove_invalid_values", "is_assistant", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
    "target_lookbehind", "assistant_ensemble_weight", "max_matching_ngram_size",
}  # fmt: skip
# What a speech model is asked for, and rules of its own that whatever transcribes applies.
OF_SPEECH = {
    "is_multilingual", "lang_to_id", "task_to_id", "language", "task", "return_timestamps",
    "no_timestamps_token_id", "prev_sot_token_id", "max_initial_timestamp_index",
    "alignment_heads", "median_filter_width",
}  # fmt: skip
# What no search here does, with the values under which generate does not do it either.
UNKNOWN_HERE: dict[str, tuple[Any, ...]] = {
    "sequence_bias": (), "token_healing": (False,), "guidance_scale": (1,),
    "watermarking_config": (), "max_time": (), "stop_strings": (), "constraints": (),
    "force_words_ids": (), "num_beam_groups": (1,), "diversity_penalty": (0,),
    "penalty_alpha": (0,), "dola_layers": (), "prompt_lookup_num_tokens": (),
    "assistant_early_exit": (), "use_mtp": (False,), "speculation_type": (),
}  # fmt: skip
OF_SAMPLING: dict[str, tuple[Any, ...]] = {
    "typical_p": (1,), "min_p": (), "top_h": (), "epsilon_cutoff": (0,), "eta_cutoff": (0,),
}  # fmt: skip
ALL = {*FIELDS, *OTHERS, *HARMLESS, *UNKNOWN_HERE, *OF_SAMPLING}


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(map(is_whole, value))


def _are_sequences(value: object) -> bool:
    return isinstance(value, list) and all(_are_ids(part) and part for part in value)


def _is_decay(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return is_whole(value[0]) and is_number(value[1])


Kind = tuple[Callable[[object], bool], str]
WHOLE: Kind = (is_whole, "a whole number")
NUMBER: Kind = (is_number, "a number")
FLAG: Kind = (_is_flag, "true or false")
IDS: Kind = (_are_ids, "a list of token ids")
ID_OR_IDS: Kind = (lambda value: is_whole(value) or _are_ids(value), "a token id or a list of them")
ANYTHING: Kind = (lambda value: True, "anything")
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("num_beams", "max_length", "max_new_tokens", "min_length"), WHOLE),
    **dict.fromkeys(("min_new_tokens", "top_k", "num_return_sequences"), WHOLE),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), WHOLE),
    **dict.fromkeys(("forced_bos_token_id", "decoder_start_token_id", "bos_token_id"), WHOLE),
    **dict.fromkeys(("length_penalty", "temperature", "top_p"), NUMBER),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), NUMBER),
    **dict.fromkeys(("do_sample", "renormalize_logits"), FLAG),
    "force_bos_token_to_be_generated": FLAG,
    "early_stopping": (lambda value: _is_flag(value) or value == "never", "true, false or 'never'"),
    "bad_words_ids": (_are_sequences, "a list of lists of token ids, none of them empty"),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), IDS),
    **dict.fromkeys(("eos_token_id", "forced_eos_token_id"), ID_OR_IDS),
    "exponential_decay_length_penalty": (_is_decay, "a list of a number of tokens and a factor"),
}


def generation_part(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an old config.json says of generation beside the model, as generate reads it."""
    return {key: value for key, value in settings.items() if key in ALL}


def read_generation(
    settings: Mapping[str, Any], config: TransformerConfig, label: str
) -> tuple[Search, list[str]]:
    """The search of generation settings, complete, and notes on what of them is not honoured.

    ``label`` names the file. Settings of a wrong type or out of range, and ids that the model does
    not have, are one UserError.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    faults = Faults()
    for key, value in settings.items():
        fits, noun = KINDS.get(key, ANYTHING)
        if key in given and not fits(value):
            faults.add(f"{key} is {shown(value)}; it must be {noun}")
            del given[key]
    notes = _notes(given, config, label)
    search = Search(
        rule=GENERATE,
        **{field: given[key] for key, field in FIELDS.items() if key in given},
        **_lengths(given, faults),
        **_sampling(given),
        **_ids(given, config),
    )
    _check(search, config, faults, label)
    return search, notes


def _lengths(given: Mapping[str, Any], faults: Faults) -> dict[str, int]:
    """The lengths: theirs count the decoder's first token, those of new tokens and ours do not."""
    longest, shortest = given.get("max_new_tokens"), given.get("min_new_tokens")
    if longest is None:
        longest = given["max_length"] - 1 if "max_length" in given else USUAL_LENGTH
        message = f"max_length is {longest + 1}; it must be at least 2"
    else:
        message = f"max_new_tokens is {longest}; it must be at least 1"
    faults.require(longest >= 1, message)
    shortest = given.get("min_length", 0) - 1 if shortest is None else shortest
    return {"max_length": max(longest, 1), "min_length": max(shortest, 0)}


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """How many outputs and whether they are drawn; what is drawn has no beam here."""
    beam = given.get("num_beams", 1)
    sample = given.get("do_sample", False) and beam == 1
    nbest = given.get("num_return_sequences", 1)
    return {
        "sample": sample,
        "top_k": given.get("top_k", USUAL_TOP_K if sample else 0),
        "nbest": nbest if sample else min(nbest, max(beam, 1)),
    }


def _ids(given: Mapping[str, Any], config: TransformerConfig) -> dict[str, Any]:
    """The settings that are token ids, where they say more than the config."""
    ends = _listed(given.get("eos_token_id", config.eos_id))
    start = given.get("decoder_start_token_id", config.decoder_start_id)
    last = _listed(given.get("forced_eos_token_id", []))
    decay = given.get("exponential_decay_length_penalty")
    found = {
        "end_ids": () if ends in ([], [config.eos_id]) else tuple(ends),
        "start_id": None if start == config.decoder_start_id else start,
        "forced_last_id": last[0] if len(last) == 1 else None,
        "banned": tuple(tuple(ids) for ids in given.get("bad_words_ids", ())),
        "suppressed": tuple(given.get("suppress_tokens", ())),
        "suppressed_first": tuple(given.get("begin_suppress_tokens", ())),
        "exponential_decay_length_penalty": None if decay is None else tuple(decay),
    }
    if _bos_is_forced(given) and "bos_token_id" in given:
        found["forced_first_id"] = given["bos_token_id"]
    return found


def _bos_is_forced(given: Mapping[str, Any]) -> bool:
    """Whether a key of the first BART models says that the first token is bos."""
    forced = given.get("force_bos_token_to_be_generated", False)
    return forced and "forced_bos_token_id" not in given


def _listed(ids: int | list[int]) -> list[int]:
    return ids if isinstance(ids, list) else [ids]


def _notes(given: Mapping[str, Any], config: TransformerConfig, label: str) -> list[str]:
    """What a user of generate would miss here, or would be surprised by."""
    found, sampled = [], given.get("do_sample", False)
    for key, value in given.items():
        known = key in ALL and key not in UNKNOWN_HERE and key not in OF_SAMPLING
        known |= config.feature_dim > 0 and key in OF_SPEECH
        neutral = {**UNKNOWN_HERE, **OF_SAMPLING}.get(key, ())
        unused = key in OF_SAMPLING and not sampled
        if not (known or unused or value in neutral):
            found.append(f"{label}: {printable_name(key)} {shown(value)} is not honoured")
    if sampled and given.get("num_beams", 1) > 1:
        found.append(f"{label}: do_sample true is not honoured; a beam search draws nothing here")
    forced = given.get("forced_eos_token_id", 0)
    if isinstance(forced, list) and len(forced) != 1:
        found.append(f"{label}: forced_eos_token_id {shown(forced)} is not honoured; it is not one")
    found += _nbest_note(given, label)
    if "max_length" not in given and "max_new_tokens" not in given:
        usual = f"outputs have at most {USUAL_LENGTH} tokens, as generate writes then"
        found.append(f"{label} has no max_length; {usual}")
    start = given.get("bos_token_id", config.decoder_start_id)
    if "decoder_start_token_id" not in given and start != config.decoder_start_id:
        usual = f"the config's {config.decoder_start_id} is taken, not bos_token_id {start}"
        found.append(f"{label} has no decoder_start_token_id; {usual}")
    return found


def _nbest_note(given: Mapping[str, Any], label: str) -> list[str]:
    """More outputs than beams are an error of generate; what is searched has fewer."""
    count, beam = given.get("num_return_sequences", 1), given.get("num_beams", 1)
    if count <= beam or (given.get("do_sample", False) and beam == 1):
        return []
    wanted = f"num_return_sequences {count} is not honoured"
    return [f"{label}: {wanted}; a beam of {beam} holds no more"]


def _check(search: Search, config: TransformerConfig, faults: Faults, label: str) -> None:
    """Raise one UserError with the faults of a search, which are named as the file names them."""
    theirs = {field: key for key, field in reversed((FIELDS | OTHERS).items())}
    try:
        check_search(search, config)
    except UserError as error:
        for fault in error.faults:
            name, rest = fault.split(" ", 1)
            key = theirs.get(name, name)
            faults.add(f"{key} {rest}", f"of {key}")
    faults.raise_if_any(f"{label} describes no search")


def shown(value: object) -> str:
    """A value for a message, as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def generation_settings(search: Search, config: TransformerConfig) -> dict[str, Any]:
    """What generation_config.json says of a search; ``read_generation`` reads it back.

    The seed is a command's, not a model's. A length that is left open is the model's. For our
    exact rule it is the nearest that generate does.
    """
    if search.rule != GENERATE:
        banned = never_produced(config).nonzero()[0].tolist()
        changes = {"banned": tuple((token,) for token in banned), "early_stopping": "never"}
        search = dataclasses.replace(search, rule=GENERATE, **changes)
    usual = Search()
    found: dict[str, Any] = {
        key: getattr(search, field)
        for key, field in FIELDS.items()
        if getattr(search, field) != getattr(usual, field)
    }
    return dict(sorted((found | _written_otherwise(search, config)).items()))


def _written_otherwise(search: Search, config: TransformerConfig) -> dict[str, Any]:
    """The keys that are not fields as they stand."""
    ends, decay = list(search.end_ids), search.exponential_decay_length_penalty
    start = config.decoder_start_id if search.start_id is None else search.start_id
    found: dict[str, Any] = {
        "num_beams": search.beam,
        "max_length": 1 + (search.max_length or config.max_length),
        "bos_token_id": config.bos_id,
        "pad_token_id": config.pad_id,
        "eos_token_id": config.eos_id if not ends else ends[0] if len(ends) == 1 else ends,
        "decoder_start_token_id": start,
    }
    optional = {
        "min_length": search.min_length and search.min_length + 1,
        "do_sample": search.sample,
        "num_return_sequences": search.nbest if search.nbest > 1 else None,
        "bad_words_ids": [list(ids) for ids in search.banned],
        "suppress_tokens": list(search.suppressed),
        "begin_suppress_tokens": list(search.suppressed_first),
        "exponential_decay_length_penalty": None if decay is None else list(decay),
    }
    found |= {key: value for key, value in optional.items() if value}
    if search.forced_last_id is not None:
        found["forced_eos_token_id"] = search.forced_last_id
    if search.sample or search.top_k:
        found["top_k"] = search.top_k
    return found


def save_search(search: Search, path: Path) -> None:
    """Write what is not usual of a search, and what everybody looks for."""
    kept = {"rule", "beam", "length_penalty", "max_length"}
    content = {
        field.name: _plain(getattr(search, field.name))
        for field in dataclasses.fields(search)
        if field.name in kept or getattr(search, field.name) != field.default
    }
    write_json(path, {"format_version": FORMAT_VERSION, **content})


def load_search(path: Path, config: TransformerConfig | None = None) -> Search:
    """The search of a file; one that is damaged or says what no search can is a UserError.

    With a config so is one that names a token that the model does not have.
    """
    content = read_json(path)
    version = content.pop("format_version", None)
    if version != FORMAT_VERSION:
        known = f"this program reads {FORMAT_VERSION}"
        raise UserError(f"{path} has format_version {shown(version)}; {known}")
    faults, names = Faults(), [field.name for field in dataclasses.fields(Search)]
    for key in (key for key in content if key not in names):
        faults.add(f"unknown key '{printable_name(key)}'{closest(key, names)}")
    if isinstance(content.get("timestamps"), dict):
        content["timestamps"] = _timestamps(content["timestamps"], faults)
    faults.raise_if_any(f"{path} describes no search")
    search = Search(**{key: _tuples(value) for key, value in content.items()})
    try:
        check_search(search, config)
    except UserError as error:
        for fault in error.faults:
            faults.add(fault, f"of {fault.split(' ', 1)[0]}")
    faults.raise_if_any(f"{path} describes no search")
    return search


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    return dataclasses.asdict(value) if isinstance(value, Timestamps) else value


def _timestamps(content: dict[str, Any], faults: Faults) -> Timestamps | None:
    """The rules of timestamps of a file; None where their names are others."""
    fields = dataclasses.fields(Timestamps)
    names = [field.name for field in fields]
    needed = [field.name for field in fields if field.default is dataclasses.MISSING]
    for key in (key for key in content if key not in names):
        faults.add(f"unknown key 'timestamps.{printable_name(key)}'{closest(key, names)}")
    for key in (key for key in needed if key not in content):
        faults.add(f"key 'timestamps.{key}' is missing")
    return None if faults.messages else Timestamps(**content)


def _tuples(value: Any) -> Any:
    """Lists as tuples, which can be told apart by their values."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
