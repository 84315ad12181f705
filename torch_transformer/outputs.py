"""Outputs that are being written and the choice among them, twin of flax_transformer/outputs.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_transformer.decoding_state import (
    DecodingState,
    after_prompt,
    for_outputs,
    listened,
)
from torch_transformer.model import Source, Transformer
from training_recipe.searching.workers import check_wanted
from transformer_spec import check_length


class Task(NamedTuple):
    """What a search is given beside the model; without ``numbers`` nothing is random.

    The decoder begins with the ``prompt``. Without ``first_id`` no token is forced. ``reach`` is
    the length of which early_stopping "never" thinks. A ``state`` of one output for each source,
    in which nothing is written, stands in the place of the source.
    """

    source: Source | None
    limits: Int[Tensor, "B"]
    never: Bool[Tensor, "V"]
    penalty: float
    temperature: float
    numbers: Float[Tensor, "B N L"] | None
    prompt: Int[Tensor, "P"]
    first_id: int | None = None
    reach: Int[Tensor, "B"] | None = None
    state: DecodingState | None = None


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


def unfinished(done: Bool[Tensor, "*rows"]) -> bool:
    """Whether there is an output to go on with; ``Stopped`` where nobody waits for it any more."""
    check_wanted()
    return not bool(done.all())


def begin(
    model: Transformer, task: Task, outputs: int = 1, groups: int = 1, whole: bool = False
) -> tuple[DecodingState, Int[Tensor, "R 1"], Outputs]:
    """The state, the last of the prompt and N empty outputs of each row, in ``groups``.

    The prompt may be read ``whole``: padding in it is a token like others.
    """
    B, N, length = len(task.limits), outputs * groups, max(1, int(task.limits.max()))
    check_length(len(task.prompt) - 1 + length, model.config)
    state = after_prompt(
        model, task.prompt[:-1], task.state or listened(model, source_of(task)), whole
    )
    state = for_outputs(state, state.columns + length, outputs, groups)
    last = task.prompt[-1:].repeat(B * N, 1)
    tokens = task.limits.new_full((B, N, length), model.config.pad_id)
    dtype = torch.promote_types(model.target_table.dtype, torch.float32)
    sums = torch.zeros(B, N, dtype=dtype, device=tokens.device)
    return state, last, Outputs(tokens, sums, task.limits.new_zeros(B, N))


def begin_chains(model: Transformer, task: Task, N: int, whole: bool = False) -> Chains:
    """N empty outputs of each row that never see each other."""
    done = (task.limits == 0)[:, None].repeat(1, N)
    return Chains(*begin(model, task, groups=N, whole=whole), done)


def source_of(task: Task) -> Source:
    """The source of a task that has one."""
    assert task.source is not None
    return task.source


def written(task: Task, state: DecodingState) -> int:
    """How many tokens every output has, of those that are not done; the prompt is none of it."""
    return state.columns - (len(task.prompt) - 1)


def last_logits(logits: Float[Tensor, "R 1 V"]) -> Float[Tensor, "R V"]:
    """The logits of the next token, in float32 at least."""
    return logits[:, 0].to(torch.promote_types(logits.dtype, torch.float32))


def without_nan(log_p: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
    """The same array, with -inf in place of what is no number."""
    return log_p.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def forced_first(
    scores: Float[Tensor, "R V"], first_id: int | None, column: int
) -> Float[Tensor, "R V"]:
    """The first token's log probability is 0 and all others' -inf, where one is forced."""
    if first_id is None or column > 0:
        return scores
    forced = torch.full_like(scores, -torch.inf)
    forced[:, first_id] = 0
    return forced


def draw(
    log_p: Float[Tensor, "R V"],
    numbers: Float[Tensor, "R"],
    temperature: float,
    top_k: int,
    top_p: float = 1.0,
) -> Int[Tensor, "R"]:
    """The tokens that numbers in [0, 1) fall on.

    They are drawn of the ``top_k`` likeliest (0: of all), and of these from the fewest likeliest
    whose share is ``top_p``.
    """
    if top_k:
        least = log_p.topk(min(top_k, log_p.shape[1])).values[:, -1:]
        log_p = log_p.masked_fill(log_p < least, -torch.inf)
    weights = torch.exp((log_p - log_p.amax(1, keepdim=True)) / temperature)
    if top_p < 1:
        weights = nucleus(weights, top_p)
    sums = torch.where(weights > 0, weights.cumsum(1), 0.0)
    beyond = sums > numbers[:, None] * sums.amax(1, keepdim=True)
    return beyond.int().argmax(1)


def nucleus(weights: Float[Tensor, "R V"], top_p: float) -> Float[Tensor, "R V"]:
    """The weights of the fewest likeliest tokens whose share is ``top_p``, 0 for the others."""
    order = weights.argsort(dim=1, stable=True)
    sums = weights.gather(1, order).cumsum(1)
    kept = sums > (1 - top_p) * sums[:, -1:]
    kept[:, -1] = True
    return torch.where(kept.gather(1, order.argsort(dim=1)), weights, 0.0)


def lengthen(
    model: Transformer,
    task: Task,
    chains: Chains,
    state: DecodingState,
    chosen: Int[Tensor, "R"],
    log_p: Float[Tensor, "R V"],
    end_ids: tuple[int, ...],
) -> Chains:
    """The outputs that are not done with the chosen tokens behind them."""
    column, done, (tokens, sums, lengths) = written(task, chains.state), chains.done, chains.outputs
    gained = log_p.gather(1, chosen[:, None]).reshape(done.shape)
    last = chosen.reshape(done.shape).masked_fill(done, model.config.pad_id)
    tokens[:, :, column] = last
    sums = torch.where(done, sums, sums + gained)
    lengths = lengths + ~done
    done = done | among(last, end_ids) | (lengths >= task.limits[:, None])
    return Chains(state, last.reshape(-1, 1), Outputs(tokens, sums, lengths), done)


def among(tokens: Int[Tensor, "B N"], ids: tuple[int, ...]) -> Bool[Tensor, "B N"]:
    """Whether each token is one of the ids."""
    found = tokens == ids[0]
    for token in ids[1:]:
        found = found | (tokens == token)
    return found


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


def joined(these: Outputs, those: Outputs) -> Outputs:
    """These outputs of each row and those behind them."""
    return Outputs(*(torch.cat(pair, 1) for pair in zip(these, those, strict=True)))
