"""Greedy search, beam search and sampling over a cache, the twin of torch_transformer/decoding.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary. What a search is: training_recipe/searching/search.py.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from flax_transformer import generation
from flax_transformer.cpu.programs import BARRIERS_STAY, on_processor
from flax_transformer.decoding_state import DecodingState, in_stages, next_logits, reorder
from flax_transformer.model import Transformer
from flax_transformer.outputs import (
    Chains,
    Outputs,
    Task,
    begin,
    begin_chains,
    choose,
    columns,
    draw,
    extend,
    forced_first,
    joined,
    last_logits,
    lengthen,
    select,
    top,
    written,
)
from flax_transformer.precision import full_precision
from training_recipe.searching.search import (
    GENERATE,
    Hypothesis,
    Search,
    barred,
    check_search,
    check_search_memory,
    hoped_lengths,
    hypotheses,
    output_room,
    prompt_of,
    prompt_room,
    random_numbers,
    row_limits,
    shaping,
)
from training_recipe.searching.workers import check_wanted
from transformer_spec import TransformerConfig, source_positions
from transformer_spec.ids import given_source

# JAX looks for what it has compiled by hashes that Python calculates, and two threads at it at once
# crash (0.10.2); the call returns before the search has begun.
CALLING = threading.Lock()
# A model's structure and its weights, which take a while to find.
Parts = tuple[Any, Any]


class Beams(NamedTuple):
    """The best unfinished and the best finished outputs of each row, both best first."""

    state: DecodingState
    last: Int[Array, "R 1"]
    live: Outputs
    finished: Outputs
    done: Bool[Array, "B"]


@full_precision
def decode(model: Transformer, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
    """The n best outputs of each row of ``source`` (B, S), best first.

    A row's outputs depend neither on the other rows nor on the padding. A row of padding alone has
    the empty output. Settings that no search can follow are a UserError, and so is a source that
    is not what the model reads: ids that its vocabulary has, or features (B, W, M). Each
    shape of ``source`` is compiled once.
    """
    source = given_source(source, model.config)
    check_decoding(model, source, search)
    task = make_task(model, source, search)
    outputs = found(model, task, search, output_room(source.shape[1], model.config, search))
    tokens, sums, lengths = (np.asarray(array) for array in outputs)
    return hypotheses(tokens, sums, lengths, model.config, search)


def found(
    model: Transformer,
    task: Task,
    search: Search,
    length: int,
    program: Callable[..., Outputs] | None = None,
    parts: Parts | None = None,
) -> Outputs:
    """What ``program``, a compiled ``searched``, finds in outputs of ``length`` columns.

    ``parts`` are the model's, where they are known already.
    """
    graph, weights = parts or nnx.split(model)
    program = program or program_for(weights)
    with CALLING:
        check_wanted()
        if search.rule == GENERATE:
            find = generation.beam_search if search.beam > 1 else generation.chain_search
            N, settings = max(search.beam, search.nbest), shaping(search)
            return program(find, graph, weights, task, length, N, settings)
        if search.beam > 1:
            return program(beam_search, graph, weights, task, length, search.beam)
        return program(chain_search, graph, weights, task, length, search.nbest, search.top_k)


def check_decoding(
    model: Transformer, source: np.ndarray, search: Search, parts: Parts | None = None
) -> None:
    """Raise UserError for settings that no search can follow or a processor has no room for."""
    check_search(search, model.config)
    weights = nnx.state(model) if parts is None else parts[1]
    if on_processor(weights):
        size = jax.tree.leaves(weights)[0].dtype.itemsize
        positions = source_positions(source.shape, model.config)
        check_search_memory(len(source), positions, model.config, search, size)


def program_for(weights: Any) -> Callable[..., Outputs]:
    """The compiled search for the device that a model's weights lie on."""
    return compiled_for_processor if on_processor(weights) else compiled


def searched(search, graph, weights, task, length, N, *settings) -> Outputs:
    """A search by the model of a graph and its weights, as one program."""
    return search(nnx.merge(graph, weights), task, length, N, *settings)


compiled = jax.jit(searched, static_argnums=(0, 1, 4, 5, 6))
compiled_for_processor = jax.jit(
    searched, static_argnums=(0, 1, 4, 5, 6), compiler_options=BARRIERS_STAY
)


def make_task(
    model: Transformer, source: np.ndarray, search: Search, state: DecodingState | None = None
) -> Task:
    """What the search is given, on the device; a ``state`` instead of the source."""
    config, prompt = model.config, prompt_of(search, model.config)
    limits = row_limits(source, config, search)
    hoped = hoped_lengths(limits, search)
    before = prompt_room(prompt, config) if state is None else state.seen.shape[2]
    return Task(
        model.as_source(source) if state is None else None,
        jnp.asarray(limits),
        jnp.asarray(barred(config, search)),
        float(search.length_penalty),
        float(search.temperature),
        jnp.asarray(random_numbers(source, config, search)) if search.sample else None,
        jnp.array(filled(prompt, before, config)),
        len(prompt) - 1,
        search.forced_first_id,
        None if hoped is None else jnp.asarray(hoped),
        state,
    )


def filled(prompt: tuple[int, ...], before: int, config: TransformerConfig) -> np.ndarray:
    """The prompt with padding behind it, so that there is room ``before`` its last token."""
    return np.array([*prompt, *[config.pad_id] * (before + 1 - len(prompt))], np.int32)


def log_probabilities(
    logits: Float[Array, "R 1 V"], never: Bool[Array, "V"]
) -> Float[Array, "R V"]:
    """The model's log probabilities of the next token; -inf for what is never produced."""
    log_p = jax.nn.log_softmax(last_logits(logits), -1)
    return jnp.where(never | jnp.isnan(log_p), -jnp.inf, log_p)


def chain_search(model: Transformer, task: Task, length: int, N: int, top_k: int) -> Outputs:
    """Outputs that take no choice back: greedy, or N samples where there are random numbers."""
    chains = begin_chains(model, task, length, N)
    room = columns(task, length, model.config)
    return in_stages(lambda chains: chain_step(model, task, chains, top_k), chains, room).outputs


def chain_step(model: Transformer, task: Task, chains: Chains, top_k: int) -> Chains:
    """Write one more token of every output that is not done."""
    column = written(task, chains.state)
    logits, state = next_logits(model, chains.last, chains.state)
    log_p = forced_first(log_probabilities(logits, task.never), task.first_id, column)
    if task.numbers is None:
        chosen = log_p.argmax(1)
    else:
        chosen = draw(log_p, task.numbers[:, :, column].ravel(), task.temperature, top_k)
    return lengthen(model, task, chains, state, chosen, log_p, (model.config.eos_id,))


def beam_search(model: Transformer, task: Task, length: int, N: int) -> Outputs:
    """The best outputs found with a beam of N; unfinished ones where none ended in time."""
    state, last, empty = begin(model, task, length, N)
    nothing = jnp.full_like(empty.sums, -jnp.inf)
    first = jnp.arange(N) == 0
    live = empty._replace(sums=jnp.where(first, empty.sums, nothing))
    beams = Beams(state, last, live, empty._replace(sums=nothing), task.limits == 0)
    room = columns(task, length, model.config)
    beams = in_stages(lambda beams: beam_step(model, task, beams), beams, room)
    ended = (beams.finished.sums > -jnp.inf).any(1)
    return choose(ended, beams.finished, beams.live)


def beam_step(model: Transformer, task: Task, beams: Beams) -> Beams:
    """One more token: 2N candidates, those that ended compete with the finished outputs."""
    (B, N, _), column = beams.live.tokens.shape, written(task, beams.state)
    logits, state = next_logits(model, beams.last, beams.state)
    log_p = log_probabilities(logits, task.never)
    log_p = forced_first(log_p, task.first_id, column)
    likeliest, tokens = top(log_p, min(2 * N, log_p.shape[1]))  # of each output alone
    totals = beams.live.sums[:, :, None] + likeliest.reshape(B, N, -1)
    sums, picked = top(totals.reshape(B, -1), 2 * N)
    parents = picked // totals.shape[2]
    tokens = jnp.take_along_axis(tokens.reshape(B, -1), picked, 1)
    found = extend(select(beams.live, parents), tokens, sums, column)
    ended = tokens == model.config.eos_id
    live_sums, order = top(jnp.where(ended, -jnp.inf, sums), N)
    live = select(found, order)._replace(sums=live_sums)
    found = found._replace(sums=jnp.where(ended, sums, -jnp.inf))
    live = choose(beams.done, beams.live, live)
    finished = choose(beams.done, beams.finished, best(beams.finished, found, task.penalty))
    done = beams.done | (live.lengths[:, 0] >= task.limits) | settled(live, finished, task)
    parents = jnp.take_along_axis(parents, order, 1)
    last = live.tokens[:, :, column].reshape(-1, 1)
    return Beams(reorder(state, parents), last, live, finished, done)


def best(finished: Outputs, found: Outputs, penalty: float | Float[Array, ""]) -> Outputs:
    """As many of both as there were finished ones, by their scores."""
    both = joined(finished, found)
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
