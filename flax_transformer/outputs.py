"""Outputs that are being written and the choice among them, twin of torch_transformer/outputs.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from flax_transformer.decoding_state import (
    DecodingState,
    after_prompt,
    for_outputs,
    listened,
    stages,
)
from flax_transformer.model import Source, Transformer
from transformer_spec import TransformerConfig


class Task(NamedTuple):
    """What a search is given beside the model; without ``numbers`` nothing is random.

    The decoder begins with the ``prompt``, of which ``before`` tokens stand before the last one;
    what is behind that only fills it up. Without ``first_id`` no token is forced. ``reach`` is the
    length of which early_stopping "never" thinks. A ``state`` of one output for each source, behind
    all tokens of the prompt but the last, stands in the place of the source.
    """

    source: Source | None
    limits: Int[Array, "B"]
    never: Bool[Array, "V"]
    penalty: float | Float[Array, ""]
    temperature: float | Float[Array, ""]
    numbers: Float[Array, "B N L"] | None
    prompt: Int[Array, "P"]
    before: int | Int[Array, ""] = 0
    first_id: int | Int[Array, ""] | None = None
    reach: Int[Array, "B"] | None = None
    state: DecodingState | None = None


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


def begin(
    model: Transformer,
    task: Task,
    length: int,
    outputs: int = 1,
    groups: int = 1,
    whole: bool = False,
) -> tuple[DecodingState, Int[Array, "R 1"], Outputs]:
    """The state, the last of the prompt and N empty outputs of each row, in ``groups``.

    The prompt may be read ``whole``: padding in it is a token like others.
    """
    B, N, config, state = len(task.limits), outputs * groups, model.config, task.state
    if state is None:
        state = listened(model, source_of(task))
        state = after_prompt(model, task.prompt[:-1], state, whole, task.before)
    room = columns(task, length, config)
    state = for_outputs(state, stages(room, state.seen.shape[2])[0], outputs, groups)
    last = jnp.broadcast_to(task.prompt[task.before], (B * N, 1)).astype(jnp.int32)
    tokens = jnp.full((B, N, length), config.pad_id, jnp.int32)
    sums = jnp.zeros((B, N), jnp.promote_types(model.target_table.dtype, jnp.float32))
    return state, last, Outputs(tokens, sums, jnp.zeros((B, N), jnp.int32))


def columns(task: Task, length: int, config: TransformerConfig) -> int:
    """The columns of the cache for the prompt and ``length`` tokens behind it."""
    return min(len(task.prompt) - 1 + length, config.max_length)


def begin_chains(
    model: Transformer, task: Task, length: int, N: int, whole: bool = False
) -> Chains:
    """N empty outputs of each row that never see each other."""
    done = (task.limits == 0)[:, None].repeat(N, 1)
    return Chains(*begin(model, task, length, groups=N, whole=whole), done)


def source_of(task: Task) -> Source:
    """The source of a task that has one."""
    assert task.source is not None
    return task.source


def written(task: Task, state: DecodingState) -> int | Int[Array, ""]:
    """How many tokens every output has, of those that are not done; the prompt is none of it."""
    return state.columns - task.before


def last_logits(logits: Float[Array, "R 1 V"]) -> Float[Array, "R V"]:
    """The logits of the next token, in float32 at least."""
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    return jax.lax.optimization_barrier(logits)[:, 0].astype(dtype)


def forced_first(
    scores: Float[Array, "R V"],
    first_id: int | Int[Array, ""] | None,
    column: int | Int[Array, ""],
) -> Float[Array, "R V"]:
    """The first token's log probability is 0 and all others' -inf, where one is forced."""
    if first_id is None:
        return scores
    forced = jnp.where(jnp.arange(scores.shape[1]) == first_id, 0, -jnp.inf)
    return jnp.where(column == 0, forced.astype(scores.dtype), scores)


def draw(
    log_p: Float[Array, "R V"],
    numbers: Float[Array, "R"],
    temperature: float | Float[Array, ""],
    top_k: int,
    top_p: float = 1.0,
) -> Int[Array, "R"]:
    """The tokens that numbers in [0, 1) fall on.

    They are drawn of the ``top_k`` likeliest (0: of all), and of these from the fewest likeliest
    whose share is ``top_p``.
    """
    if top_k:
        least = jax.lax.top_k(log_p, min(top_k, log_p.shape[1]))[0][:, -1:]
        log_p = jnp.where(log_p < least, -jnp.inf, log_p)
    weights = jnp.exp((log_p - log_p.max(1, keepdims=True)) / temperature)
    if top_p < 1:
        weights = nucleus(weights, top_p)
    sums = jnp.where(weights > 0, weights.cumsum(1), 0.0)
    beyond = sums > numbers[:, None] * sums.max(1, keepdims=True)
    return beyond.argmax(1)


def nucleus(weights: Float[Array, "R V"], top_p: float) -> Float[Array, "R V"]:
    """The weights of the fewest likeliest tokens whose share is ``top_p``, 0 for the others."""
    order = weights.argsort(axis=1, stable=True)
    sums = jnp.take_along_axis(weights, order, 1).cumsum(1)
    kept = sums > (1 - top_p) * sums[:, -1:]
    kept = kept.at[:, -1].set(True)
    return jnp.where(jnp.take_along_axis(kept, order.argsort(axis=1), 1), weights, 0.0)


def lengthen(
    model: Transformer,
    task: Task,
    chains: Chains,
    state: DecodingState,
    chosen: Int[Array, "R"],
    log_p: Float[Array, "R V"],
    end_ids: tuple[int, ...],
) -> Chains:
    """The outputs that are not done with the chosen tokens behind them."""
    column, done, (tokens, sums, lengths) = written(task, chains.state), chains.done, chains.outputs
    gained = jnp.take_along_axis(log_p, chosen[:, None], 1).reshape(done.shape)
    last = jnp.where(done, model.config.pad_id, chosen.reshape(done.shape)).astype(tokens.dtype)
    tokens = tokens.at[:, :, column].set(last)
    sums = jnp.where(done, sums, sums + gained)
    lengths = lengths + ~done
    done = done | among(last, end_ids) | (lengths >= task.limits[:, None])
    return Chains(state, last.reshape(-1, 1), Outputs(tokens, sums, lengths), done)


def among(tokens: Int[Array, "B N"], ids: tuple[int, ...]) -> Bool[Array, "B N"]:
    """Whether each token is one of the ids."""
    found = tokens == ids[0]
    for token in ids[1:]:
        found = found | (tokens == token)
    return found


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


def joined(these: Outputs, those: Outputs) -> Outputs:
    """These outputs of each row and those behind them."""
    return Outputs(*(jnp.concatenate(pair, 1) for pair in zip(these, those, strict=True)))
