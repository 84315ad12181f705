"""The search of transformers' generate, the twin of flax_transformer/generation.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, K candidates, V vocabulary. The rule is that of transformers' generation/utils.py.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_transformer.decoding_state import DecodingState, next_logits, reorder
from torch_transformer.model import Transformer
from torch_transformer.outputs import (
    Chains,
    Outputs,
    Task,
    among,
    begin,
    begin_chains,
    choose,
    draw,
    extend,
    joined,
    last_logits,
    lengthen,
    select,
    top,
    unfinished,
    without_nan,
    written,
)
from torch_transformer.processors import processed
from training_recipe.searching.search import Search, end_ids

NOTHING = -1e9  # the score of what holds no output; less than any other, and finite


class Finished(NamedTuple):
    """N ended outputs of each row, best first; where ``filled`` is False there is none yet."""

    outputs: Outputs
    scores: Float[Tensor, "B N"]
    filled: Bool[Tensor, "B N"]


class Beams(NamedTuple):
    """The best unfinished outputs of each row, best first, and the ended ones."""

    state: DecodingState
    last: Int[Tensor, "R 1"]
    live: Outputs
    finished: Finished
    done: Bool[Tensor, "B"]


def chain_search(model: Transformer, task: Task, N: int, search: Search) -> Outputs:
    """Outputs that take no choice back: greedy, or N samples where there are random numbers."""
    chains = begin_chains(model, task, N, whole=True)
    while unfinished(chains.done):
        chains = chain_step(model, task, chains, search)
    return chains.outputs


def chain_step(model: Transformer, task: Task, chains: Chains, search: Search) -> Chains:
    """Write one more token of every output that is not done."""
    column, tokens = written(task, chains.state), chains.outputs.tokens
    logits, state = next_logits(model, chains.last, chains.state, whole=True)
    scores = processed(last_logits(logits), tokens, task, search, model.config, column)
    log_p = without_nan(scores.log_softmax(1))
    if task.numbers is None:
        chosen = scores.argmax(1)
    else:
        numbers = task.numbers[:, :, column].flatten()
        chosen = draw(log_p, numbers, task.temperature, search.top_k, search.top_p)
    return lengthen(model, task, chains, state, chosen, log_p, end_ids(search, model.config))


def beam_search(model: Transformer, task: Task, N: int, search: Search) -> Outputs:
    """The best outputs found with a beam of N, ended or as long as they may be."""
    state, last, empty = begin(model, task, N, whole=True)
    nothing = torch.full_like(empty.sums, NOTHING)
    first = torch.arange(N, device=nothing.device) == 0
    live = empty._replace(sums=torch.where(first, empty.sums, nothing))
    finished = Finished(empty._replace(sums=nothing), nothing, nothing > 0)
    beams = Beams(state, last, live, finished, task.limits == 0)
    while unfinished(beams.done):
        beams = beam_step(model, task, beams, search)
    return held(beams.finished, task)


def beam_step(model: Transformer, task: Task, beams: Beams, search: Search) -> Beams:
    """One more token: of K candidates the N best may end, the N best that do not end go on."""
    (B, N, _), column = beams.live.tokens.shape, written(task, beams.state)
    ends = end_ids(search, model.config)
    logits, state = next_logits(model, beams.last, beams.state, whole=True)
    scores = next_scores(last_logits(logits), beams.live.tokens, task, search, model, column)
    K = N * (1 + len(ends))
    likeliest, tokens = top(scores, min(K, scores.shape[1]))  # of each output alone
    likeliest = likeliest.masked_fill(likeliest.isnan(), -torch.inf)
    totals = beams.live.sums[:, :, None] + likeliest.reshape(B, N, -1)
    sums, picked = top(totals.flatten(1), min(K, totals.shape[1] * totals.shape[2]))
    parents, tokens = picked // totals.shape[2], tokens.reshape(B, -1).gather(1, picked)
    found = extend(select(beams.live, parents), tokens, sums, column)
    ended = among(tokens, ends) | (task.limits <= column + 1)[:, None]
    live_sums, order = top(torch.where(ended, sums + NOTHING, sums), N)
    live = select(found, order)._replace(sums=live_sums)
    finished = merged(beams.finished, found, ended, beams.done, task.penalty, column + 1)
    done = beams.done | (task.limits <= column + 1)
    done = done | ~improvable(live, finished, task, search, column + 1)
    if search.early_stopping is True:
        done = done | finished.filled.all(1)
    last = live.tokens[:, :, column].reshape(-1, 1)
    return Beams(reorder(state, parents.gather(1, order)), last, live, finished, done)


def next_scores(
    logits: Float[Tensor, "R V"],
    tokens: Int[Tensor, "B N L"],
    task: Task,
    search: Search,
    model: Transformer,
    column: int,
) -> Float[Tensor, "R V"]:
    """What the next token adds to the sum of a beam.

    Where the settings only take tokens away, what is left is made to sum to 1 once, not twice.
    """
    penalties = search.repetition_penalty, search.encoder_repetition_penalty
    taken_away = penalties == (1, 1) and search.exponential_decay_length_penalty is None
    if not (search.renormalize and taken_away):
        logits = logits.log_softmax(1)
    return processed(logits, tokens, task, search, model.config, column)


def merged(
    finished: Finished,
    found: Outputs,
    ended: Bool[Tensor, "B K"],
    done: Bool[Tensor, "B"],
    penalty: float,
    length: int,
) -> Finished:
    """The ended outputs with those of the N best candidates that end now, as many as there were."""
    N = finished.scores.shape[1]
    ended, found = ended[:, :N], Outputs(*(array[:, :N] for array in found))
    scores = found.sums / length**penalty
    scores = torch.where(ended, scores, scores + NOTHING)
    best, numbers = top(torch.cat([finished.scores, scores], 1), N)
    filled = torch.cat([finished.filled, ended], 1).gather(1, numbers)
    outputs = select(joined(finished.outputs, found), numbers)
    return Finished(
        choose(done, finished.outputs, outputs),
        torch.where(done[:, None], finished.scores, best),
        torch.where(done[:, None], finished.filled, filled),
    )


def improvable(
    live: Outputs, finished: Finished, task: Task, search: Search, length: int
) -> Bool[Tensor, "B"]:
    """Whether the best unfinished output may yet score above the worst ended one."""
    hoped = torch.full_like(task.limits, length)
    if search.early_stopping == "never" and task.penalty > 0:
        hoped = task.limits if task.reach is None else task.reach
    best = live.sums[:, 0] / hoped.to(live.sums.dtype) ** task.penalty
    worst = finished.scores.amin(1, keepdim=True).expand_as(finished.scores)
    worst = worst.masked_fill(~finished.filled, NOTHING)
    return (best[:, None] > worst).any(1)


def held(finished: Finished, task: Task) -> Outputs:
    """The ended outputs, those of no source empty; a sum of -inf where there is none."""
    sums = finished.outputs.sums
    sums = sums.masked_fill(~finished.filled | (sums < NOTHING / 2), -torch.inf)
    empty = (task.limits == 0)[:, None] & (torch.arange(sums.shape[1], device=sums.device) == 0)
    return finished.outputs._replace(sums=sums.masked_fill(empty, 0.0))
