"""Which settings of a search none can follow: their kinds, ranges, ids, and what excludes what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from training_recipe.searching.timestamps import Timestamps
from transformer_spec import TransformerConfig
from transformer_spec.declarations import MOST_WHOLE
from transformer_spec.errors import Faults, closest

if TYPE_CHECKING:
    from training_recipe.searching.search import Search

RULES = ("exact", "generate")
HOTTEST = 1e6  # every token is as likely as another long before
STEEPEST = 10  # beyond this exponent, length ** length_penalty leaves the range of float32
MOST_PENALTY = 1e6
# What the exact rule knows; whatever else is set asks for the rule of generate.
OF_BOTH = {
    "beam", "length_penalty", "max_length", "nbest", "sample", "temperature", "top_k", "seed",
    "rule", "start_id", "forced_first_id", "prompt",
}  # fmt: skip


def is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_ids(value: object) -> bool:
    return isinstance(value, tuple) and all(map(is_whole, value))


def is_sequences(value: object) -> bool:
    return isinstance(value, tuple) and all(is_ids(part) and part for part in value)


def is_decay(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return is_whole(value[0]) and is_number(value[1])


def is_stop(value: object) -> bool:
    return isinstance(value, bool) or value == "never"


Kind = tuple[Callable[[object], bool], str]
WHOLE: Kind = (is_whole, "a number without a fraction")
NUMBER: Kind = (is_number, "a number")
FLAG: Kind = (lambda value: isinstance(value, bool), "True or False")
IDS: Kind = (is_ids, "a tuple of token ids")
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("beam", "nbest", "max_length", "top_k", "seed"), WHOLE),
    **dict.fromkeys(("length_penalty", "temperature"), NUMBER),
    "rule": (lambda value: isinstance(value, str), f"one of {', '.join(RULES)}"),
    "early_stopping": (is_stop, "True, False or 'never'"),
    **dict.fromkeys(("min_length", "no_repeat_ngram_size"), WHOLE),
    **dict.fromkeys(("encoder_no_repeat_ngram_size",), WHOLE),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "top_p"), NUMBER),
    "banned": (is_sequences, "a tuple of tuples of token ids, none of them empty"),
    "renormalize": FLAG,
    **dict.fromkeys(("forced_first_id", "forced_last_id", "start_id"), WHOLE),
    **dict.fromkeys(("suppressed", "suppressed_first", "end_ids", "prompt"), IDS),
    "exponential_decay_length_penalty": (is_decay, "a pair: tokens and a factor"),
    "timestamps": (lambda value: isinstance(value, Timestamps), "Timestamps"),
}
OPTIONAL = {
    "max_length", "forced_first_id", "forced_last_id", "start_id",
    "exponential_decay_length_penalty", "timestamps",
}  # fmt: skip


def check_kinds(search: Search, faults: Faults) -> None:
    """Whether every setting is of its kind."""
    for name, (fits, noun) in KINDS.items():
        value = getattr(search, name)
        left_out = value is None and name in OPTIONAL
        faults.require(left_out or fits(value), f"{name} is {value!r}; it must be {noun}")
    for fault in search.timestamps.faults() if isinstance(search.timestamps, Timestamps) else ():
        faults.add(fault)


def check_ranges(search: Search, faults: Faults) -> None:
    """Whether every number lies where it means something."""

    def require(names: str, holds: Callable[[Any], bool], allowed: str) -> None:
        for name in names.split():
            value = getattr(search, name)
            fits = value is None or holds(value)
            faults.require(fits, f"{name} is {value}; it must {allowed}")

    require("beam nbest max_length", lambda value: value >= 1, "be at least 1")
    most = f"be at most {MOST_WHOLE:,}"
    require("beam nbest top_k min_length", lambda value: value <= MOST_WHOLE, most)
    sizes = "top_k seed min_length no_repeat_ngram_size encoder_no_repeat_ngram_size"
    require(sizes, lambda value: value >= 0, "be at least 0")
    within = f"lie between -{STEEPEST} and {STEEPEST}"
    require("length_penalty", lambda value: abs(value) <= STEEPEST, within)
    hot = f"be above 0 and at most {HOTTEST:g}"
    require("temperature", lambda value: 0 < value <= HOTTEST, hot)
    penalty = f"be above 0 and at most {MOST_PENALTY:g}"
    names = "repetition_penalty encoder_repetition_penalty"
    require(names, lambda value: 0 < value <= MOST_PENALTY, penalty)
    require("top_p", lambda value: 0 <= value <= 1, "lie between 0 and 1")
    decay = f"be of at least 0 tokens and a factor above 0 and at most {MOST_PENALTY:g}"
    name = "exponential_decay_length_penalty"
    require(name, lambda pair: pair[0] >= 0 and 0 < pair[1] <= MOST_PENALTY, decay)


def check_together(search: Search, faults: Faults) -> None:
    """Whether the settings go with each other and with the rule."""
    if search.sample:
        faults.require(search.beam == 1, f"beam is {search.beam}; sampling has none: leave it out")
    else:
        enough = search.nbest <= max(search.beam, 1)
        message = f"nbest is {search.nbest}; a beam of {search.beam} holds no more than that"
        faults.require(enough, message)
    if search.rule not in RULES:
        near = closest(search.rule, RULES)
        faults.add(f"rule is {search.rule!r}; it must be one of {', '.join(RULES)}{near}")
    for name in ("forced_first_id", "forced_last_id"):
        token = getattr(search, name)
        message = f"{name} is {token}; suppressed has it too, and nothing could be written"
        faults.require(token not in search.suppressed, message)
    if search.prompt and search.start_id is not None:
        faults.add(f"start_id is {search.start_id}; the prompt begins the output: leave one out")
    for field in dataclasses.fields(search) if search.rule == "exact" else ():
        value = getattr(search, field.name)
        known = field.name in OF_BOTH or value == field.default
        faults.require(known, f"{field.name} is {value}; only the rule generate knows it")


def check_model(search: Search, config: TransformerConfig, faults: Faults) -> None:
    """Whether a model of the config can do what is asked."""
    if len(search.prompt) >= config.max_length:
        most = f"the model takes {config.max_length} with what is written after them"
        faults.add(f"prompt has {len(search.prompt)} tokens; {most}")
    if not config.feature_dim:
        return
    for name in ("encoder_no_repeat_ngram_size", "encoder_repetition_penalty"):
        value, usual = getattr(search, name), getattr(type(search), name)
        reason = "the model reads features, which have no tokens: leave it out"
        faults.require(value == usual, f"{name} is {value}; {reason}")


def check_ids(search: Search, tokens: int | None, faults: Faults) -> None:
    """Whether every id is that of one of so many ``tokens``, or, without them, can be one."""
    for name, token in ids_of(search):
        faults.require(token >= 0, f"{name} is {token}; no token has such an id")
        if tokens is not None and token >= tokens:
            message = f"{name} is {token}; the model has {tokens} tokens"
            faults.add(message, "ids that the model has not")


def ids_of(search: Search) -> Iterator[tuple[str, int]]:
    """The names of settings and the token ids that they hold."""
    for name in ("forced_first_id", "forced_last_id", "start_id"):
        if getattr(search, name) is not None:
            yield name, getattr(search, name)
    for name in ("suppressed", "suppressed_first", "end_ids", "prompt"):
        yield from ((name, token) for token in getattr(search, name))
    yield from (("banned", token) for sequence in search.banned for token in sequence)
    if search.timestamps is not None:
        yield from ((f"timestamps.{name}", token) for name, token in search.timestamps.ids())
