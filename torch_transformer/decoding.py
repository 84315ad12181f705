"""Greedy search, beam search and sampling over a cache, the twin of flax_transformer/decoding.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary. What a search is: training_recipe/searching/search.py.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_transformer import generation
from torch_transformer.decoding_state import DecodingState, next_logits, reorder
from torch_transformer.model import Transformer
from torch_transformer.outputs import (
    Chains,
    Outputs,
    Task,
    begin,
    begin_chains,
    choose,
    draw,
    extend,
    forced_first,
    joined,
    last_logits,
    lengthen,
    select,
    top,
    unfinished,
    without_nan,
    written,
)
from training_recipe.searching.search import (
    GENERATE,
    Hypothesis,
    Search,
    barred,
    check_search,
    check_search_memory,
    hoped_lengths,
    hypotheses,
    prompt_of,
    random_numbers,
    row_limits,
)
from transformer_spec import source_positions
from transformer_spec.ids import given_source


class Beams(NamedTuple):
    """The best unfinished and the best finished outputs of each row, both best first."""

    state: DecodingState
    last: Int[Tensor, "R 1"]
    live: Outputs
    finished: Outputs
    done: Bool[Tensor, "B"]


@torch.inference_mode()
def decode(model: Transformer, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
    """The n best outputs of each row of ``source`` (B, S), best first.

    A row's outputs depend neither on the other rows nor on the padding. A row of padding alone has
    the empty output. Settings that no search can follow are a UserError, and so is a source that
    is not what the model reads: ids that its vocabulary has, or features (B, W, M).
    """
    source = given_source(source, model.config)
    check_decoding(model, source, search)
    outputs = found(model, make_task(model, source, search), search)
    tokens, sums, lengths = (array.cpu().numpy() for array in outputs)
    return hypotheses(tokens, sums, lengths, model.config, search)


def found(model: Transformer, task: Task, search: Search) -> Outputs:
    """What a search finds."""
    if search.rule == GENERATE and search.beam > 1:
        return generation.beam_search(model, task, search.beam, search)
    if search.rule == GENERATE:
        return generation.chain_search(model, task, search.nbest, search)
    if search.beam > 1:
        return beam_search(model, task, search.beam)
    return chain_search(model, task, search.nbest, search.top_k)


def check_decoding(model: Transformer, source: np.ndarray, search: Search) -> None:
    """Raise UserError for settings that no search can follow or a processor has no room for."""
    check_search(search, model.config)
    if model.target_table.device.type == "cpu":
        size = model.target_table.element_size()
        positions = source_positions(source.shape, model.config)
        check_search_memory(len(source), positions, model.config, search, size)


def make_task(
    model: Transformer, source: np.ndarray, search: Search, state: DecodingState | None = None
) -> Task:
    """What the search is given, on the model's device; a ``state`` instead of the source."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(model.target_table.device)

    config = model.config
    limits = row_limits(source, config, search).astype(np.int64)
    hoped = hoped_lengths(limits, search)
    return Task(
        model.as_source(source) if state is None else None,
        tensor(limits),
        tensor(barred(config, search)),
        float(search.length_penalty),
        float(search.temperature),
        tensor(random_numbers(source, config, search)) if search.sample else None,
        tensor(np.array(prompt_of(search, config))),
        search.forced_first_id,
        None if hoped is None else tensor(hoped),
        state,
    )


def log_probabilities(
    logits: Float[Tensor, "R 1 V"], never: Bool[Tensor, "V"]
) -> Float[Tensor, "R V"]:
    """The model's log probabilities of the next token; -inf for what is never produced."""
    log_p = torch.log_softmax(last_logits(logits), -1)
    return without_nan(log_p).masked_fill_(never, -torch.inf)


def chain_search(model: Transformer, task: Task, N: int, top_k: int) -> Outputs:
    """Outputs that take no choice back: greedy, or N samples where there are random numbers."""
    chains = begin_chains(model, task, N)
    while unfinished(chains.done):
        chains = chain_step(model, task, chains, top_k)
    return chains.outputs


def chain_step(model: Transformer, task: Task, chains: Chains, top_k: int) -> Chains:
    """Write one more token of every output that is not done."""
    column = written(task, chains.state)
    logits, state = next_logits(model, chains.last, chains.state)
    log_p = forced_first(log_probabilities(logits, task.never), task.first_id, column)
    if task.numbers is None:
        chosen = log_p.argmax(1)
    else:
        chosen = draw(log_p, task.numbers[:, :, column].flatten(), task.temperature, top_k)
    return lengthen(model, task, chains, state, chosen, log_p, (model.config.eos_id,))


def beam_search(model: Transformer, task: Task, N: int) -> Outputs:
    """The best outputs found with a beam of N; unfinished ones where none ended in time."""
    state, last, empty = begin(model, task, N)
    nothing = torch.full_like(empty.sums, -torch.inf)
    first = torch.arange(N, device=nothing.device) == 0
    live = empty._replace(sums=torch.where(first, empty.sums, nothing))
    beams = Beams(state, last, live, empty._replace(sums=nothing), task.limits == 0)
    while unfinished(beams.done):
        beams = beam_step(model, task, beams)
    ended = (beams.finished.sums > -torch.inf).any(1)
    return choose(ended, beams.finished, beams.live)


def beam_step(model: Transformer, task: Task, beams: Beams) -> Beams:
    """One more token: 2N candidates, those that ended compete with the finished outputs."""
    (B, N, _), column = beams.live.tokens.shape, written(task, beams.state)
    logits, state = next_logits(model, beams.last, beams.state)
    log_p = log_probabilities(logits, task.never)
    log_p = forced_first(log_p, task.first_id, column)
    likeliest, tokens = top(log_p, min(2 * N, log_p.shape[1]))  # of each output alone
    totals = beams.live.sums[:, :, None] + likeliest.reshape(B, N, -1)
    sums, picked = top(totals.flatten(1), 2 * N)
    parents, tokens = picked // totals.shape[2], tokens.reshape(B, -1).gather(1, picked)
    found = extend(select(beams.live, parents), tokens, sums, column)
    ended = tokens == model.config.eos_id
    live_sums, order = top(sums.masked_fill(ended, -torch.inf), N)
    live = select(found, order)._replace(sums=live_sums)
    found = found._replace(sums=sums.masked_fill(~ended, -torch.inf))
    live = choose(beams.done, beams.live, live)
    finished = choose(beams.done, beams.finished, best(beams.finished, found, task.penalty))
    done = beams.done | (live.lengths[:, 0] >= task.limits) | settled(live, finished, task)
    last = live.tokens[:, :, column].reshape(-1, 1)
    return Beams(reorder(state, parents.gather(1, order)), last, live, finished, done)


def best(finished: Outputs, found: Outputs, penalty: float) -> Outputs:
    """As many of both as there were finished ones, by their scores."""
    both = joined(finished, found)
    return select(both, top(scores(both.sums, both.lengths, penalty), finished.sums.shape[1])[1])


def settled(live: Outputs, finished: Outputs, task: Task) -> Bool[Tensor, "B"]:
    """Whether no live output can still score above the worst finished one.

    Its sum can only fall; its score is then highest at the longest length or at the next.
    """
    lengths = task.limits if task.penalty >= 0 else live.lengths[:, 0] + 1
    highest = scores(live.sums.amax(1), lengths, task.penalty)
    return highest <= scores(finished.sums, finished.lengths, task.penalty).amin(1)


def scores(sums: Tensor, lengths: Tensor, penalty: float) -> Tensor:
    """Sums of log probabilities / length ** penalty."""
    return sums / lengths.clamp(min=1).to(sums.dtype) ** penalty
