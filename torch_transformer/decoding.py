"""Greedy search, beam search and sampling over a cache, the twin of flax_transformer/decoding.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary. What a search is: training_recipe/search.py.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_transformer.decoding_state import DecodingState, next_logits, reorder, start
from torch_transformer.model import Transformer
from training_recipe.searching.search import (
    Hypothesis,
    Search,
    check_search,
    check_search_memory,
    hypotheses,
    never_produced,
    random_numbers,
    row_limits,
)


class Task(NamedTuple):
    """What a search is given beside the model; without ``numbers`` nothing is random."""

    source: Int[Tensor, "B S"]
    limits: Int[Tensor, "B"]
    never: Bool[Tensor, "V"]
    penalty: float
    temperature: float
    numbers: Float[Tensor, "B N L"] | None


class Outputs(NamedTuple):
    """N outputs of each row; a sum of log probabilities of -inf holds none."""

    tokens: Int[Tensor, "B N L"]
    sums: Float[Tensor, "B N"]
    lengths: Int[Tensor, "B N"]


class Chains(NamedTuple):
    """Outputs that are written independently of each other."""

    state: DecodingState
    last: Int[Tensor, "R 1"]
    outputs: Outputs
    done: Bool[Tensor, "B N"]


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
    the empty output. Settings that no search can follow are a UserError.
    """
    check_search(search)
    if model.source_table.device.type == "cpu":
        size = model.source_table.element_size()
        check_search_memory(len(source), source.shape[1], model.config, search, size)
    task = make_task(model, source, search)
    if search.beam > 1:
        outputs = beam_search(model, task, search.beam)
    else:
        outputs = chain_search(model, task, search.nbest, search.top_k)
    tokens, sums, lengths = (array.cpu().numpy() for array in outputs)
    return hypotheses(tokens, sums, lengths, model.config, search)


def make_task(model: Transformer, source: np.ndarray, search: Search) -> Task:
    """What the search is given, on the model's device."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(model.source_table.device)

    config = model.config
    numbers = tensor(random_numbers(source, config, search)) if search.sample else None
    return Task(
        tensor(np.asarray(source, np.int64)),
        tensor(row_limits(source, config, search).astype(np.int64)),
        tensor(never_produced(config)),
        float(search.length_penalty),
        float(search.temperature),
        numbers,
    )


def begin(
    model: Transformer, task: Task, outputs: int = 1, groups: int = 1
) -> tuple[DecodingState, Int[Tensor, "R 1"], Outputs]:
    """The state, the decoder's start token and N empty outputs of each row, in ``groups``."""
    B, N, config = len(task.source), outputs * groups, model.config
    memory, length = model.encoder_states(task.source), max(1, int(task.limits.max()))
    state = start(model, memory, task.source, length, outputs, groups)
    last = task.source.new_full((B * N, 1), config.decoder_start_id)
    tokens = task.source.new_full((B, N, length), config.pad_id)
    sums = memory.new_zeros(B, N, dtype=torch.promote_types(memory.dtype, torch.float32))
    return state, last, Outputs(tokens, sums, task.source.new_zeros(B, N))


def log_probabilities(
    logits: Float[Tensor, "R 1 V"], never: Bool[Tensor, "V"]
) -> Float[Tensor, "R V"]:
    """The model's log probabilities of the next token; -inf for what is never produced."""
    logits = logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32))
    log_p = torch.log_softmax(logits, -1)
    return log_p.masked_fill(never | log_p.isnan(), -torch.inf)


def chain_search(model: Transformer, task: Task, N: int, top_k: int) -> Outputs:
    """Outputs that take no choice back: greedy, or N samples where there are random numbers."""
    done = (task.limits == 0)[:, None].repeat(1, N)
    chains = Chains(*begin(model, task, groups=N), done)
    while not chains.done.all():
        chains = chain_step(model, task, chains, top_k)
    return chains.outputs


def chain_step(model: Transformer, task: Task, chains: Chains, top_k: int) -> Chains:
    """Write one more token of every output that is not done."""
    column, done, (tokens, sums, lengths) = chains.state.columns, chains.done, chains.outputs
    logits, state = next_logits(model, chains.last, chains.state)
    log_p = log_probabilities(logits, task.never)
    if task.numbers is None:
        chosen = log_p.argmax(1)
    else:
        chosen = draw(log_p, task.numbers[:, :, column].flatten(), task.temperature, top_k)
    gained = log_p.gather(1, chosen[:, None]).reshape(done.shape)
    last = chosen.reshape(done.shape).masked_fill(done, model.config.pad_id)
    tokens[:, :, column] = last
    sums = torch.where(done, sums, sums + gained)
    lengths = lengths + ~done
    done = done | (last == model.config.eos_id) | (lengths >= task.limits[:, None])
    return Chains(state, last.reshape(-1, 1), Outputs(tokens, sums, lengths), done)


def draw(
    log_p: Float[Tensor, "R V"], numbers: Float[Tensor, "R"], temperature: float, top_k: int
) -> Int[Tensor, "R"]:
    """The tokens that numbers in [0, 1) fall on, of the ``top_k`` likeliest (0: of all)."""
    if top_k:
        least = log_p.topk(min(top_k, log_p.shape[1])).values[:, -1:]
        log_p = log_p.masked_fill(log_p < least, -torch.inf)
    weights = torch.exp((log_p - log_p.amax(1, keepdim=True)) / temperature)
    sums = torch.where(weights > 0, weights.cumsum(1), 0.0)
    beyond = sums > numbers[:, None] * sums.amax(1, keepdim=True)
    return beyond.int().argmax(1)


def beam_search(model: Transformer, task: Task, N: int) -> Outputs:
    """The best outputs found with a beam of N; unfinished ones where none ended in time."""
    state, last, empty = begin(model, task, N)
    nothing = torch.full_like(empty.sums, -torch.inf)
    first = torch.arange(N, device=nothing.device) == 0
    live = empty._replace(sums=torch.where(first, empty.sums, nothing))
    beams = Beams(state, last, live, empty._replace(sums=nothing), task.limits == 0)
    while not beams.done.all():
        beams = beam_step(model, task, beams)
    ended = (beams.finished.sums > -torch.inf).any(1)
    return choose(ended, beams.finished, beams.live)


def beam_step(model: Transformer, task: Task, beams: Beams) -> Beams:
    """One more token: 2N candidates, those that ended compete with the finished outputs."""
    B, N, _ = beams.live.tokens.shape
    logits, state = next_logits(model, beams.last, beams.state)
    log_p = log_probabilities(logits, task.never)
    likeliest, tokens = top(log_p, min(2 * N, log_p.shape[1]))  # of each output alone
    totals = beams.live.sums[:, :, None] + likeliest.reshape(B, N, -1)
    sums, picked = top(totals.flatten(1), 2 * N)
    parents, tokens = picked // totals.shape[2], tokens.reshape(B, -1).gather(1, picked)
    found = extend(select(beams.live, parents), tokens, sums, beams.state.columns)
    ended = tokens == model.config.eos_id
    live_sums, order = top(sums.masked_fill(ended, -torch.inf), N)
    live = select(found, order)._replace(sums=live_sums)
    found = found._replace(sums=sums.masked_fill(~ended, -torch.inf))
    live = choose(beams.done, beams.live, live)
    finished = choose(beams.done, beams.finished, best(beams.finished, found, task.penalty))
    done = beams.done | (live.lengths[:, 0] >= task.limits) | settled(live, finished, task)
    last = live.tokens[:, :, beams.state.columns].reshape(-1, 1)
    return Beams(reorder(state, parents.gather(1, order)), last, live, finished, done)


def top(values: Float[Tensor, "B K"], count: int) -> tuple[Tensor, Tensor]:
    """The largest values and their numbers, of equal ones the first, which topk leaves open."""
    largest, numbers = values.topk(min(count + 1, values.shape[1]))
    if (largest[:, count:] == largest[:, count - 1 : count]).any():
        numbers = first_of_equals(values, largest[:, count - 1 : count], count)
    numbers = numbers[:, :count].sort(1).values
    order = values.gather(1, numbers).argsort(dim=1, descending=True, stable=True)
    numbers = numbers.gather(1, order)
    return values.gather(1, numbers), numbers


def first_of_equals(
    values: Float[Tensor, "B K"], least: Float[Tensor, "B 1"], count: int
) -> Int[Tensor, "B M"]:
    """The numbers of all values above ``least`` and of the first that equal it."""
    above, equal = values > least, values == least
    room = count - above.sum(1, keepdim=True)
    kept = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
    return kept.nonzero()[:, 1].reshape(-1, count)


def select(outputs: Outputs, numbers: Int[Tensor, "B M"]) -> Outputs:
    """The outputs of the given numbers of each row."""
    rows = torch.arange(len(numbers), device=numbers.device)[:, None]
    return Outputs(*(array[rows, numbers] for array in outputs))


def extend(outputs: Outputs, tokens: Int[Tensor, "B M"], sums: Tensor, column: int) -> Outputs:
    """The outputs with one more token each."""
    outputs.tokens[:, :, column] = tokens
    return Outputs(outputs.tokens, sums, outputs.lengths + 1)


def choose(rows: Bool[Tensor, "B"], these: Outputs, those: Outputs) -> Outputs:
    """These outputs for the rows that are True, those for the others."""
    pairs = zip(these, those, strict=True)
    return Outputs(*(torch.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))


def best(finished: Outputs, found: Outputs, penalty: float) -> Outputs:
    """As many of both as there were finished ones, by their scores."""
    both = Outputs(*(torch.cat(pair, 1) for pair in zip(finished, found, strict=True)))
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
