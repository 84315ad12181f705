"""The next token's scores by settings of generate, the twin of torch_transformer/processors.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L longest
output, T tokens of a text, W windows of n tokens in it, V vocabulary. They are applied in the order
of transformers' generation/utils.py, which decides where they contradict each other.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from flax_transformer.outputs import Task, forced_first, source_of
from training_recipe.searching.search import Search, end_ids
from training_recipe.searching.timestamps import Timestamps
from transformer_spec import TransformerConfig

Column = int | Int[Array, ""]


def processed(
    scores: Float[Array, "R V"],
    tokens: Int[Array, "B N L"],
    task: Task,
    search: Search,
    config: TransformerConfig,
    column: Column,
) -> Float[Array, "R V"]:
    """The scores of the token of a column; ``tokens`` are written up to it."""
    written, end = text_so_far(tokens, task, config), len(task.prompt) + column
    if search.encoder_repetition_penalty != 1:
        sources = source_tokens(task, tokens.shape[1], config, scores.shape[1])
        seen = marked(sources, scores.shape[1])
        scores = rescaled(scores, seen, 1 / search.encoder_repetition_penalty)
    if search.repetition_penalty != 1:
        seen = marked(up_to(written, end, scores.shape[1]), scores.shape[1])
        scores = rescaled(scores, seen, search.repetition_penalty)
    for banned in bans(written, task, search, config, end, scores.shape[1]):
        scores = jnp.where(banned, -jnp.inf, scores)
    scores = too_short(scores, search, config, column)
    scores = forced_first(scores, task.first_id, column)
    scores = forced_last(scores, tokens, task, search, column)
    scores = hastened(scores, search, config, column)
    scores = suppressed(scores, task, search, column)
    if search.timestamps is not None:
        scores = timed(scores, tokens, search.timestamps, column)
    return jax.nn.log_softmax(scores, 1) if search.renormalize else scores


def text_so_far(
    tokens: Int[Array, "B N L"], task: Task, config: TransformerConfig
) -> Int[Array, "R T"]:
    """What is written, behind the prompt, which ends where the outputs begin; T = P + L.

    The vocabulary's size stands for what is before the prompt.
    """
    P, V = len(task.prompt), config.target_vocab_size
    prompt = jnp.where(jnp.arange(P) <= task.before, task.prompt, V)
    prompt = jnp.roll(prompt, P - 1 - task.before)
    tokens = tokens.reshape(-1, tokens.shape[2])
    return jnp.concatenate([jnp.broadcast_to(prompt, (len(tokens), P)), tokens], 1)


def up_to(written: Int[Array, "R T"], end: Column, V: int) -> Int[Array, "R T"]:
    """What is written before an end; V stands for what is not."""
    return jnp.where(jnp.arange(written.shape[1]) < end, written, V)


def source_tokens(task: Task, N: int, config: TransformerConfig, V: int) -> Int[Array, "R S"]:
    """The source of each output; V stands for padding and for what the target does not have."""
    tokens = jnp.where(source_of(task) == config.pad_id, V, jnp.minimum(source_of(task), V))
    return tokens.repeat(N, 0)


def marked(ids: Int[Array, "R T"], V: int) -> Bool[Array, "R V"]:
    """Which tokens of the vocabulary are among the ids, of which V stands for none."""
    rows = jnp.arange(len(ids))[:, None]
    return jnp.zeros((len(ids), V), bool).at[rows, ids].set(True, mode="drop")


def rescaled(
    scores: Float[Array, "R V"], seen: Bool[Array, "R V"], penalty: float
) -> Float[Array, "R V"]:
    """The scores of seen tokens divided by the penalty, negative ones multiplied."""
    changed = jnp.where(scores < 0, scores * penalty, scores / penalty)
    return jnp.where(seen, changed, scores)


def bans(
    written: Int[Array, "R T"],
    task: Task,
    search: Search,
    config: TransformerConfig,
    end: Column,
    V: int,
) -> list[Bool[Array, "..."]]:
    """Masks (R, V) or (V,) of what must not come next, at ``end``, of each setting that bans."""
    found, size, most = [], search.no_repeat_ngram_size, written.shape[1]
    if search.banned:
        found.append(task.never)
    if 0 < size <= most:
        text, before = up_to(written, end, V), prefix(written, end, size - 1)
        found.append(followers(text, text < V, before, V))
    size = search.encoder_no_repeat_ngram_size
    if task.source is not None and 0 < size <= min(most, task.source.shape[1]):
        text = source_tokens(task, len(written) // len(task.source), config, V)
        real = (text < V) & (end + 1 >= size)
        found.append(followers(text, real, prefix(written, end, size - 1), V))
    found += [
        completed(prefix(written, end, size), group, V) & (end >= size)
        for size, group in by_length(search.banned).items()
        if size <= most
    ]
    return found


def prefix(written: Int[Array, "R T"], end: Column, size: int) -> Int[Array, "R n"]:
    """The last tokens before an end."""
    return jax.lax.dynamic_slice_in_dim(written, end - size, size, 1)


def followers(
    text: Int[Array, "R T"], real: Bool[Array, "R T"], before: Int[Array, "R n"], V: int
) -> Bool[Array, "R V"]:
    """The tokens that follow a sequence where it stands in the text among ``real`` tokens."""
    size, W = before.shape[1] + 1, text.shape[1] - before.shape[1]
    match = real[:, size - 1 :]
    for place in range(size - 1):
        here = slice(place, place + W)
        match = match & real[:, here] & (text[:, here] == before[:, place, None])
    return marked(jnp.where(match, text[:, size - 1 :], V), V)


def by_length(banned: tuple[tuple[int, ...], ...]) -> dict[int, list[tuple[int, ...]]]:
    """The banned sequences of several tokens by the number of those before the last."""
    groups: dict[int, list[tuple[int, ...]]] = {}
    for sequence in banned:
        if len(sequence) > 1:
            groups.setdefault(len(sequence) - 1, []).append(sequence)
    return groups


def completed(
    before: Int[Array, "R n"], sequences: list[tuple[int, ...]], V: int
) -> Bool[Array, "R V"]:
    """The last tokens of the sequences of which all others stand before."""
    table = jnp.array(sequences)
    match = (before[:, None] == table[:, :-1]).all(2)
    return marked(jnp.where(match, table[:, -1], V), V)


def marks(ids: tuple[int, ...], V: int) -> Bool[Array, "V"]:
    """True for the ids."""
    return jnp.zeros(V, bool).at[jnp.array(ids)].set(True)


def too_short(
    scores: Float[Array, "R V"], search: Search, config: TransformerConfig, column: Column
) -> Float[Array, "R V"]:
    """-inf for the end where an output would be too short."""
    if not search.min_length:
        return scores
    ends = marks(end_ids(search, config), scores.shape[1])
    return jnp.where(ends & (column < search.min_length), -jnp.inf, scores)


def forced_last(
    scores: Float[Array, "R V"],
    tokens: Int[Array, "B N L"],
    task: Task,
    search: Search,
    column: Column,
) -> Float[Array, "R V"]:
    """The last token that fits has a score of 0 and all others -inf, where one is forced."""
    token = search.forced_last_id
    if token is None:
        return scores
    forced = jnp.full_like(scores, -jnp.inf).at[:, token].set(0)
    at_limit = (task.limits == column + 1).repeat(tokens.shape[1])
    return jnp.where(at_limit[:, None], forced, scores)


def hastened(
    scores: Float[Array, "R V"], search: Search, config: TransformerConfig, column: Column
) -> Float[Array, "R V"]:
    """The scores of the end raised more with every token beyond a length."""
    if search.exponential_decay_length_penalty is None:
        return scores
    first, factor = search.exponential_decay_length_penalty
    ends = marks(end_ids(search, config), scores.shape[1]) & jnp.isfinite(scores)
    beyond = jnp.maximum(column - first, 0).astype(scores.dtype)
    return jnp.where(ends, scores + jnp.abs(scores) * (factor**beyond - 1), scores)


def suppressed(
    scores: Float[Array, "R V"], task: Task, search: Search, column: Column
) -> Float[Array, "R V"]:
    """-inf for the tokens that are never written and for those that are not written first."""
    first = column == (0 if task.first_id is None else 1)
    if search.suppressed:
        scores = jnp.where(marks(search.suppressed, scores.shape[1]), -jnp.inf, scores)
    if search.suppressed_first:
        never = marks(search.suppressed_first, scores.shape[1]) & first
        scores = jnp.where(never, -jnp.inf, scores)
    return scores


def timed(
    scores: Float[Array, "R V"], tokens: Int[Array, "B N L"], rules: Timestamps, column: Column
) -> Float[Array, "R V"]:
    """-inf for what the rules of timestamps do not let come next.

    If all timestamps that may come are likelier than the likeliest other token, one of them comes.
    """
    (R, V), first = scores.shape, rules.first
    ids, L = jnp.arange(V), tokens.shape[2]
    written = tokens.reshape(R, L) - first  # of text below 0
    behind = (written[:, column - 1] >= 0) & (column > 0)
    again = (written[:, column - 2] >= 0) | (column < 2)
    opened = behind & ~again
    newest = jnp.where(jnp.arange(L) < column, written, -1).max(1)
    least = first + jnp.where(opened, newest, newest + 1)
    latest = V if rules.latest_first is None else first + rules.latest_first
    banned = ids == rules.without
    banned = banned | ((column == 0) & ((ids < first) | (ids > latest)))
    banned = banned | (opened[:, None] & (ids < rules.end))
    banned = banned | ((ids >= first) & ((ids < least[:, None]) | (behind & again)[:, None]))
    scores = jnp.where(banned, -jnp.inf, scores)
    likelier = jax.nn.logsumexp(scores[:, first:], 1) > scores[:, :first].max(1)
    return jnp.where(likelier[:, None] & (ids < first), -jnp.inf, scores)
