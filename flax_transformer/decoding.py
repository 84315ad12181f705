"""Greedy search, beam search and sampling over a cache, the twin of torch_transformer/decoding.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary. What a search is: training_recipe/search.py.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from flax_transformer.cpu.programs import BARRIERS_STAY, on_processor
from flax_transformer.decoding_state import (
    DecodingState,
    next_logits,
    reorder,
    start,
    with_room,
)
from flax_transformer.model import Transformer
from flax_transformer.precision import full_precision
from training_recipe.searching.search import (
    Hypothesis,
    Search,
    check_search,
    check_search_memory,
    hypotheses,
    longest_output,
    never_produced,
    random_numbers,
    row_limits,
)

MOST_STAGES = 2
SHORTEST_STAGE = 16


class Task(NamedTuple):
    """What a search is given beside the model; without ``numbers`` nothing is random."""

    source: Int[Array, "B S"]
    limits: Int[Array, "B"]
    never: Bool[Array, "V"]
    penalty: float | Float[Array, ""]
    temperature: float | Float[Array, ""]
    numbers: Float[Array, "B N L"] | None


class Outputs(NamedTuple):
    """N outputs of each row; a sum of log probabilities of -inf holds none."""

    tokens: Int[Array, "B N L"]
    sums: Float[Array, "B N"]
    lengths: Int[Array, "B N"]


class Chains(NamedTuple):
    """Outputs that are written independently of each other."""

    state: DecodingState
    last: Int[Array, "R 1"]
    outputs: Outputs
    done: Bool[Array, "B N"]


class Beams(NamedTuple):
    """The best unfinished and the best finished outputs of each row, both best first."""

    state: DecodingState
    last: Int[Array, "R 1"]
    live: Outputs
    finished: Outputs
    done: Bool[Array, "B"]


Written = TypeVar("Written", Chains, Beams)


@full_precision
def decode(model: Transformer, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
    """The n best outputs of each row of ``source`` (B, S), best first.

    A row's outputs depend neither on the other rows nor on the padding. A row of padding alone has
    the empty output. Settings that no search can follow are a UserError. Each shape of ``source``
    is compiled once.
    """
    check_search(search)
    graph, weights = nnx.split(model)
    if on_processor(weights):
        size = jax.tree.leaves(weights)[0].dtype.itemsize
        check_search_memory(len(source), source.shape[1], model.config, search, size)
    task = make_task(model, source, search)
    longest = longest_output(source.shape[1], model.config, search)
    program = compiled_for_processor if on_processor(weights) else compiled
    if search.beam > 1:
        outputs = program(beam_search, graph, weights, task, longest, search.beam)
    else:
        outputs = program(chain_search, graph, weights, task, longest, search.nbest, search.top_k)
    tokens, sums, lengths = (np.asarray(array) for array in outputs)
    return hypotheses(tokens, sums, lengths, model.config, search)


def searched(search, graph, weights, task, length, N, *top_k) -> Outputs:
    """A search by the model of a graph and its weights, as one program."""
    return search(nnx.merge(graph, weights), task, length, N, *top_k)


compiled = jax.jit(searched, static_argnums=(0, 1, 4, 5, 6))
compiled_for_processor = jax.jit(
    searched, static_argnums=(0, 1, 4, 5, 6), compiler_options=BARRIERS_STAY
)


def make_task(model: Transformer, source: np.ndarray, search: Search) -> Task:
    """What the search is given, on the device."""
    config = model.config
    numbers = jnp.asarray(random_numbers(source, config, search)) if search.sample else None
    return Task(
        jnp.asarray(source, jnp.int32),
        jnp.asarray(row_limits(source, config, search)),
        jnp.asarray(never_produced(config)),
        float(search.length_penalty),
        float(search.temperature),
        numbers,
    )


def begin(
    model: Transformer, task: Task, length: int, outputs: int = 1, groups: int = 1
) -> tuple[DecodingState, Int[Array, "R 1"], Outputs]:
    """The state, the decoder's start token and N empty outputs of each row, in ``groups``."""
    B, N, config = len(task.source), outputs * groups, model.config
    memory = model.encoder_states(task.source)
    state = start(model, memory, task.source, stages(length)[0], outputs, groups)
    last = jnp.full((B * N, 1), config.decoder_start_id, jnp.int32)
    tokens = jnp.full((B, N, length), config.pad_id, jnp.int32)
    sums = jnp.zeros((B, N), jnp.promote_types(memory.dtype, jnp.float32))
    return state, last, Outputs(tokens, sums, jnp.zeros((B, N), jnp.int32))


def log_probabilities(
    logits: Float[Array, "R 1 V"], never: Bool[Array, "V"]
) -> Float[Array, "R V"]:
    """The model's log probabilities of the next token; -inf for what is never produced."""
    logits = jax.lax.optimization_barrier(logits)[:, 0].astype(
        jnp.promote_types(logits.dtype, jnp.float32)
    )
    log_p = jax.nn.log_softmax(logits, -1)
    return jnp.where(never | jnp.isnan(log_p), -jnp.inf, log_p)


def chain_search(model: Transformer, task: Task, length: int, N: int, top_k: int) -> Outputs:
    """Outputs that take no choice back: greedy, or N samples where there are random numbers."""
    done = (task.limits == 0)[:, None].repeat(N, 1)
    chains = Chains(*begin(model, task, length, groups=N), done)
    return in_stages(lambda chains: chain_step(model, task, chains, top_k), chains, length).outputs


def in_stages(step: Callable[[Written], Written], written: Written, length: int) -> Written:
    """Step until all outputs are done, over a cache that grows: most end before ``length``."""
    for columns in stages(length):
        written = written._replace(state=with_room(written.state, columns))
        written = jax.lax.while_loop(
            lambda written, end=columns: ~written.done.all() & (written.state.columns < end),
            step,
            written,
        )
    return written


def stages(length: int) -> list[int]:
    """Ever longer caches, the last of ``length`` columns; each is one more loop to compile."""
    sizes = [length]
    while sizes[0] > SHORTEST_STAGE and len(sizes) < MOST_STAGES:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes


def chain_step(model: Transformer, task: Task, chains: Chains, top_k: int) -> Chains:
    """Write one more token of every output that is not done."""
    column, done, (tokens, sums, lengths) = chains.state.columns, chains.done, chains.outputs
    logits, state = next_logits(model, chains.last, chains.state)
    log_p = log_probabilities(logits, task.never)
    if task.numbers is None:
        chosen = log_p.argmax(1)
    else:
        chosen = draw(log_p, task.numbers[:, :, column].ravel(), task.temperature, top_k)
    gained = jnp.take_along_axis(log_p, chosen[:, None], 1).reshape(done.shape)
    last = jnp.where(done, model.config.pad_id, chosen.reshape(done.shape)).astype(tokens.dtype)
    tokens = tokens.at[:, :, column].set(last)
    sums = jnp.where(done, sums, sums + gained)
    lengths = lengths + ~done
    done = done | (last == model.config.eos_id) | (lengths >= task.limits[:, None])
    return Chains(state, last.reshape(-1, 1), Outputs(tokens, sums, lengths), done)


def draw(
    log_p: Float[Array, "R V"],
    numbers: Float[Array, "R"],
    temperature: float | Float[Array, ""],
    top_k: int,
) -> Int[Array, "R"]:
    """The tokens that numbers in [0, 1) fall on, of the ``top_k`` likeliest (0: of all)."""
    if top_k:
        least = jax.lax.top_k(log_p, min(top_k, log_p.shape[1]))[0][:, -1:]
        log_p = jnp.where(log_p < least, -jnp.inf, log_p)
    weights = jnp.exp((log_p - log_p.max(1, keepdims=True)) / temperature)
    sums = jnp.where(weights > 0, weights.cumsum(1), 0.0)
    beyond = sums > numbers[:, None] * sums.max(1, keepdims=True)
    return beyond.argmax(1)


def beam_search(model: Transformer, task: Task, length: int, N: int) -> Outputs:
    """The best outputs found with a beam of N; unfinished ones where none ended in time."""
    state, last, empty = begin(model, task, length, N)
    nothing = jnp.full_like(empty.sums, -jnp.inf)
    first = jnp.arange(N) == 0
    live = empty._replace(sums=jnp.where(first, empty.sums, nothing))
    beams = Beams(state, last, live, empty._replace(sums=nothing), task.limits == 0)
    beams = in_stages(lambda beams: beam_step(model, task, beams), beams, length)
    ended = (beams.finished.sums > -jnp.inf).any(1)
    return choose(ended, beams.finished, beams.live)


def beam_step(model: Transformer, task: Task, beams: Beams) -> Beams:
    """One more token: 2N candidates, those that ended compete with the finished outputs."""
    B, N, _ = beams.live.tokens.shape
    logits, state = next_logits(model, beams.last, beams.state)
    log_p = log_probabilities(logits, task.never)
    likeliest, tokens = top(log_p, min(2 * N, log_p.shape[1]))  # of each output alone
    totals = beams.live.sums[:, :, None] + likeliest.reshape(B, N, -1)
    sums, picked = top(totals.reshape(B, -1), 2 * N)
    parents = picked // totals.shape[2]
    tokens = jnp.take_along_axis(tokens.reshape(B, -1), picked, 1)
    found = extend(select(beams.live, parents), tokens, sums, beams.state.columns)
    ended = tokens == model.config.eos_id
    live_sums, order = top(jnp.where(ended, -jnp.inf, sums), N)
    live = select(found, order)._replace(sums=live_sums)
    found = found._replace(sums=jnp.where(ended, sums, -jnp.inf))
    live = choose(beams.done, beams.live, live)
    finished = choose(beams.done, beams.finished, best(beams.finished, found, task.penalty))
    done = beams.done | (live.lengths[:, 0] >= task.limits) | settled(live, finished, task)
    parents = jnp.take_along_axis(parents, order, 1)
    last = live.tokens[:, :, beams.state.columns].reshape(-1, 1)
    return Beams(reorder(state, parents), last, live, finished, done)


def top(values: Float[Array, "B K"], count: int) -> tuple[Array, Array]:
    """The largest values and their numbers, of equal ones the first."""
    largest, numbers = jax.lax.top_k(values, count)
    return largest, numbers


def select(outputs: Outputs, numbers: Int[Array, "B M"]) -> Outputs:
    """The outputs of the given numbers of each row."""
    rows = jnp.arange(len(numbers))[:, None]
    return Outputs(*(array[rows, numbers] for array in outputs))


def extend(
    outputs: Outputs, tokens: Int[Array, "B M"], sums: Array, column: int | Array
) -> Outputs:
    """The outputs with one more token each."""
    longer = outputs.tokens.at[:, :, column].set(tokens)
    return Outputs(longer, sums, outputs.lengths + 1)


def choose(rows: Bool[Array, "B"], these: Outputs, those: Outputs) -> Outputs:
    """These outputs for the rows that are True, those for the others."""
    pairs = zip(these, those, strict=True)
    return Outputs(*(jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))


def best(finished: Outputs, found: Outputs, penalty: float | Float[Array, ""]) -> Outputs:
    """As many of both as there were finished ones, by their scores."""
    both = Outputs(*(jnp.concatenate(pair, 1) for pair in zip(finished, found, strict=True)))
    return select(both, top(scores(both.sums, both.lengths, penalty), finished.sums.shape[1])[1])


def settled(live: Outputs, finished: Outputs, task: Task) -> Bool[Array, "B"]:
    """Whether no live output can still score above the worst finished one.

    Its sum can only fall; its score is then highest at the longest length or at the next.
    """
    lengths = jnp.where(task.penalty >= 0, task.limits, live.lengths[:, 0] + 1)
    highest = scores(live.sums.max(1), lengths, task.penalty)
    return highest <= scores(finished.sums, finished.lengths, task.penalty).min(1)


def scores(sums: Array, lengths: Array, penalty: float | Float[Array, ""]) -> Array:
    """Sums of log probabilities / length ** penalty."""
    return sums / jnp.maximum(lengths, 1).astype(sums.dtype) ** penalty
