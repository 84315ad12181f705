"""What searching for outputs means in both frameworks: limits, randomness, results; NumPy only."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training_recipe.searching.checks import (
    check_ids,
    check_kinds,
    check_model,
    check_ranges,
    check_together,
)
from training_recipe.searching.timestamps import Timestamps
from transformer_spec import TransformerConfig, UserError, check_features, no_features
from transformer_spec.errors import Faults
from transformer_spec.memory import check_memory

if TYPE_CHECKING:
    from training_recipe.text.vocabulary import Vocabulary

EXACT, GENERATE = "exact", "generate"


@dataclass(frozen=True)
class Search:
    """How to look for an output: greedy (beam 1), beam, or sampling; ``max_length`` counts eos.

    The rule "exact" stops when nothing better is left and never writes what begins or fills a
    sequence; "generate" is that of transformers' ``generate``, with its settings: all that follow,
    of which ``start_id``, the decoder's first token where it is not the config's, and
    ``forced_first_id`` go with both. No lengths count the decoder's first token; ``min_length``
    is the least before the end. ``early_stopping`` True stops at ``beam`` ended outputs, False
    when the best unfinished one scores below them at its length, "never" at the longest.
    ``banned`` are sequences of ids, ``suppressed_first`` ids that are not written first (or after
    the forced one), ``end_ids`` those that end an output where that is not eos alone;
    ``exponential_decay_length_penalty`` is (tokens, factor). n-grams, penalties and ``banned`` see
    the decoder's first token, as there.

    A ``prompt`` holds the decoder's first tokens, in place of its start token, with both rules; no
    output and no length has them, and both together are at most the model's ``max_length``.
    ``timestamps`` are the rules of tokens that stand for times, applied after everything else.
    """

    beam: int = 1
    length_penalty: float = 1.0
    max_length: int | None = None
    nbest: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0
    rule: str = "exact"
    early_stopping: bool | str = False
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    banned: tuple[tuple[int, ...], ...] = ()
    renormalize: bool = False
    forced_first_id: int | None = None
    forced_last_id: int | None = None
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()
    start_id: int | None = None
    end_ids: tuple[int, ...] = ()
    encoder_no_repeat_ngram_size: int = 0
    encoder_repetition_penalty: float = 1.0
    exponential_decay_length_penalty: tuple[int, float] | None = None
    top_p: float = 1.0
    prompt: tuple[int, ...] = ()
    timestamps: Timestamps | None = None


@dataclass(frozen=True)
class Hypothesis:
    """One output, without eos.

    ``score`` is the sum of log probabilities / length ** length_penalty, where the length and
    the sum count eos; ``log_probability`` is the sum alone. ``ended`` says whether there was eos,
    and ``end_id`` which token that was, where a search may end an output by several.
    Log probabilities are those that the search compares: a forced token's is 0, and penalties of
    the rule of generate are in them.
    """

    ids: list[int]
    score: float
    log_probability: float
    ended: bool = True
    end_id: int | None = None


def check_search(search: Search, config: TransformerConfig | None = None) -> None:
    """Raise one UserError that names every setting that no search can follow.

    With a config also every token id that its model does not have, and what it cannot do.
    """
    faults = Faults()
    check_kinds(search, faults)
    faults.raise_if_any("cannot search")
    check_ranges(search, faults)
    check_together(search, faults)
    check_ids(search, None if config is None else config.target_vocab_size, faults)
    if config is not None:
        check_model(search, config, faults)
    faults.raise_if_any("cannot search")


def in_language(search: Search, target: Vocabulary) -> Search:
    """The search whose outputs begin as those in the language of a vocabulary do, if it has one."""
    if target.language is None:
        return search
    code = target.languages[target.language]
    first = code if code in target.frame.before else search.forced_first_id
    start = search.start_id if target.start_id is None else target.start_id
    return replace(search, forced_first_id=first, start_id=start)


def longest_output(source_tokens: int, config: TransformerConfig, search: Search) -> int:
    """Most tokens of an output, eos counted, for a source of some tokens, eos counted.

    A source of features has no tokens by which an output could be judged. Where there is a
    ``min_length`` an output has room for it and its end.
    """
    most = config.max_length - len(search.prompt)
    if config.feature_dim:
        return min(most, search.max_length or most)
    usual = max(2 * source_tokens + 10, search.min_length + 1 if search.min_length else 0)
    return min(most, usual if search.max_length is None else search.max_length)


def output_room(source_tokens: int, config: TransformerConfig, search: Search) -> int:
    """Columns for ``longest_output``, of which there are few different numbers.

    They are the same whatever the prompt; for sources of features a power of two, or all.
    """
    longest = longest_output(source_tokens, config, replace(search, prompt=()))
    return min(config.max_length, power_of_two(longest)) if config.feature_dim else longest


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least ``number``."""
    return 1 << max(number - 1, 0).bit_length()


def prompt_room(prompt: tuple[int, ...], config: TransformerConfig) -> int:
    """Columns for all tokens of a prompt but the last, of which there are few different numbers."""
    before = len(prompt) - 1
    return min(power_of_two(before), config.max_length - 1) if before else 0


def prompt_of(search: Search, config: TransformerConfig) -> tuple[int, ...]:
    """The decoder's first tokens, at least one."""
    start_id = config.decoder_start_id if search.start_id is None else search.start_id
    return search.prompt or (start_id,)


def search_bytes(
    rows: int, source_tokens: int, config: TransformerConfig, search: Search, itemsize: int = 4
) -> int:
    """The least that a search of a batch of sources takes beside the weights, in bytes.

    Every layer's keys and values of the sources and of the outputs, which output sees which cell of
    the cache (only outputs of a beam see each other), the scores of attention over it, logits and
    their logarithms, candidates.
    """
    N, L = max(search.beam, search.nbest), max(1, longest_output(source_tokens, config, search))
    R, V = rows * N, config.target_vocab_size
    seen_by, both = N if search.beam > 1 else 1, 2 * config.heads_dim * config.num_decoder_layers
    cache = (rows * source_tokens + R * L) * both * itemsize
    cells = R * L * seen_by * (2 + config.num_heads * itemsize)
    return cache + cells + 2 * R * V * itemsize + 2 * R * min(2 * N, V) * itemsize


def check_heard(features: object, config: TransformerConfig) -> None:
    """Raise a UserError for what is no features (B, W, M) in NumPy, or for a model of tokens."""
    if not config.feature_dim:
        raise UserError("the model reads tokens and hears nothing; give its sources to decode")
    if not isinstance(features, np.ndarray):
        raise no_features(features, "numpy.ndarray", config.feature_dim)
    check_features(features.shape, str(features.dtype), config.feature_dim)


def check_rows_heard(rows: Sequence[int] | None, count: int) -> list[int]:
    """The rows that are meant, of so many; a UserError where some are not there."""
    found = list(range(count)) if rows is None else [int(row) for row in rows]
    faults = Faults()
    for row in (row for row in found if not 0 <= row < count):
        faults.add(f"row {row} was not heard; there are {count}, from 0 on")
    faults.raise_if_any("cannot search")
    return found


def check_search_memory(
    rows: int, source_tokens: int, config: TransformerConfig, search: Search, itemsize: int = 4
) -> None:
    """Raise a UserError with the estimate where a search would not fit into the memory there is."""
    width = f"a beam of {search.beam:,}" if search.beam > 1 else f"nbest {search.nbest:,}"
    tokens = longest_output(source_tokens, config, search)
    what = f"{width} in batches of {rows:,} and outputs of {tokens:,} tokens"
    needed = search_bytes(rows, source_tokens, config, search, itemsize)
    advice = "give a smaller beam, nbest or batch size, or shorter outputs"
    check_memory(needed, what, advice)


def row_limits(source: np.ndarray, config: TransformerConfig, search: Search) -> np.ndarray:
    """``longest_output`` of each row (B,) by its own tokens; 0 for a row of padding alone."""
    if config.feature_dim:
        return np.full(len(source), longest_output(source.shape[1], config, search), np.int32)
    tokens = (source != config.pad_id).sum(1)
    limits = [longest_output(int(count), config, search) if count else 0 for count in tokens]
    return np.array(limits, np.int32)


def never_produced(config: TransformerConfig) -> np.ndarray:
    """True (V,) for the tokens that begin or fill a sequence and are no part of an output."""
    never = np.zeros(config.target_vocab_size, bool)
    never[[config.pad_id, config.bos_id, config.decoder_start_id]] = True
    never[config.eos_id] = False
    return never


def end_ids(search: Search, config: TransformerConfig) -> tuple[int, ...]:
    """The tokens that end an output."""
    return search.end_ids or (config.eos_id,)


def barred(config: TransformerConfig, search: Search) -> np.ndarray:
    """True (V,) for the tokens that the search never writes by itself."""
    if search.rule == EXACT:
        return never_produced(config)
    never = np.zeros(config.target_vocab_size, bool)
    never[[ids[0] for ids in search.banned if len(ids) == 1]] = True
    never[list(end_ids(search, config))] = False
    return never


def hoped_lengths(limits: np.ndarray, search: Search) -> np.ndarray | None:
    """The lengths (B,) of which early_stopping "never" thinks, also where the model ends before."""
    if search.early_stopping != "never":
        return None
    return limits if search.max_length is None else np.full_like(limits, search.max_length)


def shaping(search: Search) -> Search:
    """The settings that shape a compiled program; the others are numbers given to it."""
    numbers = {"length_penalty": 1.0, "temperature": 1.0, "seed": 0, "nbest": 1}
    ids = {"start_id": None, "forced_first_id": None, "prompt": ()}
    return replace(search, **numbers, **ids, max_length=None)


def random_numbers(source: np.ndarray, config: TransformerConfig, search: Search) -> np.ndarray:
    """Numbers in [0, 1), (B, nbest, length) float32: one for each token of each sample.

    They are drawn from the seed and the row's tokens, so that neither the other rows nor the
    padding change a sample; or from the bytes of its features.
    """
    length = output_room(source.shape[1], config, search)
    numbers = np.zeros((len(source), length, search.nbest), np.float32)
    for row, given in zip(numbers, source, strict=True):
        seeds = [search.seed, *_seeds(given, config)]
        row[:] = np.random.default_rng(seeds).random(row.shape, np.float32)
    return numbers.swapaxes(1, 2).copy()


def _seeds(row: np.ndarray, config: TransformerConfig) -> list[int]:
    """Whole numbers that say which source a row is."""
    if config.feature_dim:
        return [zlib.crc32(np.ascontiguousarray(row, np.float32).tobytes())]
    # One is added because a seed sequence ignores zeros at its end.
    return [int(token) + 1 for token in row[row != config.pad_id]]


def check_room(columns: object, new: int, length: int) -> None:
    """Raise ValueError where a cache has no room for more columns; one being traced is trusted."""
    if isinstance(columns, int) and columns + new > length:
        raise ValueError(f"a cache of {length} columns, {columns} in use, has no room for {new}")


def hypotheses(
    tokens: np.ndarray,
    sums: np.ndarray,
    lengths: np.ndarray,
    config: TransformerConfig,
    search: Search,
) -> list[list[Hypothesis]]:
    """The n best of each row of tokens (B, N, L), sums of log probabilities and lengths (B, N).

    A sum of -inf holds no output; a row without any has the empty one, whose score is -inf.
    """
    found = []
    for row in zip(tokens, sums, lengths, strict=True):
        held = [
            hypothesis(ids[:length], float(total), config, search)
            for ids, total, length in zip(*row, strict=True)
            if total > -np.inf
        ]
        held.sort(key=lambda one: -one.score)
        found.append(held[: search.nbest] or [Hypothesis([], -np.inf, -np.inf)])
    return found


def hypothesis(
    tokens: np.ndarray, log_probability: float, config: TransformerConfig, search: Search
) -> Hypothesis:
    """One output of its tokens, eos included where it ended."""
    score = log_probability / max(len(tokens), 1) ** search.length_penalty
    ids = [int(token) for token in tokens]
    ended = bool(ids) and ids[-1] in end_ids(search, config)
    if not ended:
        return Hypothesis(ids, score, log_probability, ended)
    return Hypothesis(ids[:-1], score, log_probability, ended, ids[-1])
