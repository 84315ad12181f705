"""What searching for outputs means in both frameworks: limits, randomness, results; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from transformer_spec import TransformerConfig
from transformer_spec.declarations import MOST_WHOLE
from transformer_spec.errors import Faults
from transformer_spec.memory import check_memory

WHOLE = " without a fraction"
KINDS = dict.fromkeys(("beam", "nbest", "max_length", "top_k", "seed"), Integral)
KINDS |= dict.fromkeys(("length_penalty", "temperature"), Real)
HOTTEST = 1e6  # every token is as likely as another long before
STEEPEST = 10  # beyond this exponent, length ** length_penalty leaves the range of float32


@dataclass(frozen=True)
class Search:
    """How to look for an output: greedy (beam 1), beam, or sampling; ``max_length`` counts eos."""

    beam: int = 1
    length_penalty: float = 1.0
    max_length: int | None = None
    nbest: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Hypothesis:
    """One output, without eos.

    ``score`` is the sum of log probabilities / length ** length_penalty, where the length and
    the sum count eos; ``log_probability`` is the sum alone. ``ended`` says whether there was eos.
    """

    ids: list[int]
    score: float
    log_probability: float
    ended: bool = True


def check_search(search: Search) -> None:
    """Raise one UserError that names every setting that no search can follow."""
    faults = Faults()
    for name, kind in KINDS.items():
        value = getattr(search, name)
        fits = isinstance(value, kind) and not isinstance(value, bool)
        left_out = name == "max_length" and value is None
        message = f"{name} is {value!r}; it must be a number{WHOLE if kind is Integral else ''}"
        faults.require(fits or left_out, message)
    faults.raise_if_any("cannot search")
    for name in ("beam", "nbest", "max_length"):
        value = getattr(search, name)
        faults.require(value is None or value >= 1, f"{name} is {value}; it must be at least 1")
    for name in ("beam", "nbest", "top_k"):
        value = getattr(search, name)
        message = f"{name} is {value}; it must be at most {MOST_WHOLE:,}"
        faults.require(value <= MOST_WHOLE, message)
    for name in ("top_k", "seed"):
        value = getattr(search, name)
        faults.require(value >= 0, f"{name} is {value}; it must be at least 0")
    penalty, temperature = search.length_penalty, search.temperature
    message = f"length_penalty is {penalty}; it must lie between -{STEEPEST} and {STEEPEST}"
    faults.require(abs(penalty) <= STEEPEST, message)
    message = f"temperature is {temperature}; it must be above 0 and at most {HOTTEST:g}"
    faults.require(0 < temperature <= HOTTEST, message)
    if search.sample:
        faults.require(search.beam == 1, f"beam is {search.beam}; sampling has none: leave it out")
    else:
        enough = search.nbest <= max(search.beam, 1)
        message = f"nbest is {search.nbest}; a beam of {search.beam} holds no more than that"
        faults.require(enough, message)
    faults.raise_if_any("cannot search")


def longest_output(source_tokens: int, config: TransformerConfig, search: Search) -> int:
    """Most tokens of an output, eos counted, for a source of some tokens, eos counted."""
    wanted = 2 * source_tokens + 10 if search.max_length is None else search.max_length
    return min(config.max_length, wanted)


def search_bytes(
    rows: int, source_tokens: int, config: TransformerConfig, search: Search, itemsize: int = 4
) -> int:
    """The least that a search of a batch of sources takes beside the weights, in bytes.

    Keys and values of every layer, which output sees which cell of the cache (only outputs of a
    beam see each other), the scores of attention over it, logits and their logarithms, candidates.
    """
    N, L = max(search.beam, search.nbest), max(1, longest_output(source_tokens, config, search))
    R, V, D = rows * N, config.target_vocab_size, config.hidden_dim
    seen_by = N if search.beam > 1 else 1
    cache = 2 * R * L * D * config.num_decoder_layers * itemsize
    cells = R * L * seen_by * (2 + config.num_heads * itemsize)
    return cache + cells + 2 * R * V * itemsize + 2 * R * min(2 * N, V) * itemsize


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
    tokens = (source != config.pad_id).sum(1)
    limits = [longest_output(int(count), config, search) if count else 0 for count in tokens]
    return np.array(limits, np.int32)


def never_produced(config: TransformerConfig) -> np.ndarray:
    """True (V,) for the tokens that begin or fill a sequence and are no part of an output."""
    never = np.zeros(config.target_vocab_size, bool)
    never[[config.pad_id, config.bos_id, config.decoder_start_id]] = True
    never[config.eos_id] = False
    return never


def random_numbers(source: np.ndarray, config: TransformerConfig, search: Search) -> np.ndarray:
    """Numbers in [0, 1), (B, nbest, length) float32: one for each token of each sample.

    They are drawn from the seed and the row's tokens, so that neither the other rows nor the
    padding change a sample.
    """
    length = longest_output(source.shape[1], config, search)
    numbers = np.zeros((len(source), length, search.nbest), np.float32)
    for row, tokens in zip(numbers, source, strict=True):
        # One is added because a seed sequence ignores zeros at its end.
        real = tokens[tokens != config.pad_id].astype(int) + 1
        row[:] = np.random.default_rng([search.seed, *real]).random(row.shape, np.float32)
    return numbers.swapaxes(1, 2).copy()


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
    ids = [int(token) for token in tokens if token != config.eos_id]
    ended = len(tokens) > 0 and tokens[-1] == config.eos_id
    return Hypothesis(ids, score, log_probability, bool(ended))
