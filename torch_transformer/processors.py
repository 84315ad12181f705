"""The next token's scores by settings of generate, the twin of flax_transformer/processors.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L longest
output, T tokens of a text, W windows of n tokens in it, V vocabulary. They are applied in the order
of transformers' generation/utils.py, which decides where they contradict each other.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_transformer.outputs import Task, forced_first, source_of
from training_recipe.searching.search import Search, end_ids
from training_recipe.searching.timestamps import Timestamps
from transformer_spec import TransformerConfig


def processed(
    scores: Float[Tensor, "R V"],
    tokens: Int[Tensor, "B N L"],
    task: Task,
    search: Search,
    config: TransformerConfig,
    column: int,
) -> Float[Tensor, "R V"]:
    """The scores of the token of a column; ``tokens`` are written up to it."""
    written, end = text_so_far(tokens, task), len(task.prompt) + column
    if search.encoder_repetition_penalty != 1:
        sources = source_tokens(task, tokens.shape[1], config, scores.shape[1])
        seen = marked(sources, scores.shape[1])
        scores = rescaled(scores, seen, 1 / search.encoder_repetition_penalty)
    if search.repetition_penalty != 1:
        seen = marked(written[:, :end], scores.shape[1])
        scores = rescaled(scores, seen, search.repetition_penalty)
    for banned in bans(written, task, search, config, end, scores.shape[1]):
        scores = scores.masked_fill(banned, -torch.inf)
    scores = too_short(scores, search, config, column)
    scores = forced_first(scores, task.first_id, column)
    scores = forced_last(scores, tokens, task, search, column)
    scores = hastened(scores, search, config, column)
    scores = suppressed(scores, task, search, column)
    if search.timestamps is not None:
        scores = timed(scores, tokens, search.timestamps, column)
    return scores.log_softmax(1) if search.renormalize else scores


def text_so_far(tokens: Int[Tensor, "B N L"], task: Task) -> Int[Tensor, "R T"]:
    """What is written, behind the prompt of P tokens; T = P + L."""
    tokens = tokens.reshape(-1, tokens.shape[2])
    return torch.cat([task.prompt.expand(len(tokens), -1), tokens], 1)


def source_tokens(task: Task, N: int, config: TransformerConfig, V: int) -> Int[Tensor, "R S"]:
    """The source of each output; V stands for padding and for what the target does not have."""
    tokens = source_of(task).masked_fill(source_of(task) == config.pad_id, V).clamp(max=V)
    return tokens.repeat_interleave(N, 0)


def marked(ids: Int[Tensor, "R T"], V: int) -> Bool[Tensor, "R V"]:
    """Which tokens of the vocabulary are among the ids, of which V stands for none."""
    found = torch.zeros(len(ids), V + 1, dtype=torch.bool, device=ids.device)
    return found.scatter_(1, ids, True)[:, :V]


def rescaled(
    scores: Float[Tensor, "R V"], seen: Bool[Tensor, "R V"], penalty: float
) -> Float[Tensor, "R V"]:
    """The scores of seen tokens divided by the penalty, negative ones multiplied."""
    changed = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen, changed, scores)


def bans(
    written: Int[Tensor, "R T"],
    task: Task,
    search: Search,
    config: TransformerConfig,
    end: int,
    V: int,
) -> list[Bool[Tensor, "..."]]:
    """Masks (R, V) or (V,) of what must not come next, at ``end``, of each setting that bans."""
    found, size = [], search.no_repeat_ngram_size
    if search.banned:
        found.append(task.never)
    if 0 < size <= end:
        text, before = written[:, :end], prefix(written, end, size - 1)
        found.append(followers(text, text < V, before, V))
    size = search.encoder_no_repeat_ngram_size
    if task.source is not None and 0 < size <= min(end + 1, task.source.shape[1]):
        text = source_tokens(task, len(written) // len(task.source), config, V)
        found.append(followers(text, text < V, prefix(written, end, size - 1), V))
    found += [
        completed(prefix(written, end, size), group, V)
        for size, group in by_length(search.banned).items()
        if size <= end
    ]
    return found


def prefix(written: Int[Tensor, "R T"], end: int, size: int) -> Int[Tensor, "R n"]:
    """The last tokens before an end."""
    return written[:, end - size : end]


def followers(
    text: Int[Tensor, "R T"], real: Bool[Tensor, "R T"], before: Int[Tensor, "R n"], V: int
) -> Bool[Tensor, "R V"]:
    """The tokens that follow a sequence where it stands in the text among ``real`` tokens."""
    size = before.shape[1] + 1
    windows, whole = text.unfold(1, size, 1), real.unfold(1, size, 1).all(2)
    match = whole & (windows[:, :, :-1] == before[:, None]).all(2)
    return marked(torch.where(match, windows[:, :, -1], V), V)


def by_length(banned: tuple[tuple[int, ...], ...]) -> dict[int, list[tuple[int, ...]]]:
    """The banned sequences of several tokens by the number of those before the last."""
    groups: dict[int, list[tuple[int, ...]]] = {}
    for sequence in banned:
        if len(sequence) > 1:
            groups.setdefault(len(sequence) - 1, []).append(sequence)
    return groups


def completed(
    before: Int[Tensor, "R n"], sequences: list[tuple[int, ...]], V: int
) -> Bool[Tensor, "R V"]:
    """The last tokens of the sequences of which all others stand before."""
    table = torch.tensor(sequences, device=before.device)
    match = (before[:, None] == table[:, :-1]).all(2)
    return marked(torch.where(match, table[:, -1], V), V)


def marks(ids: tuple[int, ...], V: int, device: torch.device) -> Bool[Tensor, "V"]:
    """True for the ids."""
    found = torch.zeros(V, dtype=torch.bool, device=device)
    found[list(ids)] = True
    return found


def too_short(
    scores: Float[Tensor, "R V"], search: Search, config: TransformerConfig, column: int
) -> Float[Tensor, "R V"]:
    """-inf for the end where an output would be too short."""
    if column >= search.min_length:
        return scores
    ends = marks(end_ids(search, config), scores.shape[1], scores.device)
    return scores.masked_fill(ends, -torch.inf)


def forced_last(
    scores: Float[Tensor, "R V"],
    tokens: Int[Tensor, "B N L"],
    task: Task,
    search: Search,
    column: int,
) -> Float[Tensor, "R V"]:
    """The last token that fits has a score of 0 and all others -inf, where one is forced."""
    token, last = search.forced_last_id, column + 1 == tokens.shape[2]
    # Of a given length all rows have the same limit, which is that of the tokens.
    if token is None or not (last or search.max_length is None):
        return scores
    forced = torch.full_like(scores, -torch.inf)
    forced[:, token] = 0
    at_limit = (task.limits == column + 1).repeat_interleave(tokens.shape[1])
    return torch.where(at_limit[:, None], forced, scores)


def hastened(
    scores: Float[Tensor, "R V"], search: Search, config: TransformerConfig, column: int
) -> Float[Tensor, "R V"]:
    """The scores of the end raised more with every token beyond a length."""
    first, factor = search.exponential_decay_length_penalty or (column, 1.0)
    if column <= first:
        return scores
    ends = marks(end_ids(search, config), scores.shape[1], scores.device) & scores.isfinite()
    return torch.where(ends, scores + scores.abs() * (factor ** (column - first) - 1), scores)


def suppressed(
    scores: Float[Tensor, "R V"], task: Task, search: Search, column: int
) -> Float[Tensor, "R V"]:
    """-inf for the tokens that are never written and for those that are not written first."""
    first = column == (0 if task.first_id is None else 1)
    ids = search.suppressed + (search.suppressed_first if first else ())
    if not ids:
        return scores
    return scores.masked_fill(marks(ids, scores.shape[1], scores.device), -torch.inf)


def timed(
    scores: Float[Tensor, "R V"], tokens: Int[Tensor, "B N L"], rules: Timestamps, column: int
) -> Float[Tensor, "R V"]:
    """-inf for what the rules of timestamps do not let come next.

    If all timestamps that may come are likelier than the likeliest other token, one of them comes.
    """
    R, first = len(scores), rules.first
    scores = scores.clone()
    scores[:, rules.without] = -torch.inf
    text, stamps = scores[:, :first], scores[:, first:]
    if column == 0:
        text.fill_(-torch.inf)
        if rules.latest_first is not None:
            stamps[:, rules.latest_first + 1 :] = -torch.inf
        return scores
    written = tokens.reshape(R, -1)[:, :column] - first  # of text below 0
    behind = written[:, -1] >= 0
    again = written[:, -2] >= 0 if column > 1 else torch.ones_like(behind)
    opened, newest = behind & ~again, written.amax(1)
    scores[:, : rules.end].masked_fill_(opened[:, None], -torch.inf)
    steps = torch.arange(stamps.shape[1], device=scores.device)
    least = torch.where(opened, newest, newest + 1)
    stamps.masked_fill_((steps < least[:, None]) | (behind & again)[:, None], -torch.inf)
    likelier = stamps.logsumexp(1) > text.amax(1)
    text.masked_fill_(likelier[:, None], -torch.inf)
    return scores
