"""Features encoded once and searched as often as wanted, the twin of torch_transformer/hearing.py.

Letters: B rows of features, W frames, M feature_dim, P tokens of a prompt, V vocabulary.

Programs are compiled for few numbers of rows and lengths of prompts, all powers of two: rows that
are not wanted are done before they begin, and what fills a prompt up is seen by nothing.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from flax_transformer.cpu.programs import BARRIERS_STAY, on_processor
from flax_transformer.decoding import CALLING, Parts, check_decoding, filled, found, make_task
from flax_transformer.decoding_state import (
    DecodingState,
    after_prompt,
    listened,
    next_states,
    stages,
    with_room,
)
from flax_transformer.model import Source, Transformer
from flax_transformer.precision import full_precision
from training_recipe.searching.search import (
    EXACT,
    Hypothesis,
    Search,
    check_heard,
    check_rows_heard,
    check_search,
    hypotheses,
    output_room,
    power_of_two,
    prompt_of,
    prompt_room,
)


@full_precision
def hear(model: Transformer, features: np.ndarray) -> "Heard":
    """What a model hears in features (B, W, M); what is no features is a UserError."""
    check_heard(features, model.config)
    model.check_numbers(jnp.empty(0))
    rows = [*range(len(features))]
    source = model.as_source(features[filled_rows(rows)])
    parts = nnx.split(model)
    return Heard(model, features, run(parts, listening, source), parts)


class Heard:
    """What the decoder's layers keep of the encoder's output, on the model's device.

    The model is asked as it was when it heard.
    """

    def __init__(
        self, model: Transformer, features: np.ndarray, state: DecodingState, parts: Parts
    ) -> None:
        self.model, self.features, self.state, self.parts = model, features, state, parts

    @full_precision
    def logits(self, prompt: tuple[int, ...]) -> np.ndarray:
        """The logits (B, P, V) of the token after each of a prompt, in float32 at least."""
        search, config = Search(prompt=tuple(prompt)), self.model.config
        check_search(search, config)
        tokens = prompt_of(search, config)
        room = prompt_room(tokens, config)
        found = run(self.parts, scoring, self.state, filled(tokens, room, config))
        found = np.asarray(found[: len(self.features), : len(tokens)])
        return found.astype(np.promote_types(found.dtype, np.float32))

    @full_precision
    def decode(self, search: Search, rows: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        """The n best outputs of each of the ``rows``, of all by default, best first.

        They are those of ``decode`` of the same features.
        """
        model, wanted = self.model, check_rows_heard(rows, len(self.features))
        check_decoding(model, self.features[wanted], search, self.parts)
        if not wanted:
            return []
        taken = filled_rows(wanted)
        state = self.state if rows is None else of_rows(self.state, jnp.array(taken))
        state = self.behind_prompt(state, search)
        task = make_task(model, self.features[taken], search, state)
        limits = jnp.where(jnp.arange(len(taken)) < len(wanted), task.limits, 0)
        length = output_room(self.features.shape[1], model.config, search)
        outputs = found(model, task._replace(limits=limits), search, length, parts=self.parts)
        tokens, sums, lengths = (np.asarray(array)[: len(wanted)] for array in outputs)
        return hypotheses(tokens, sums, lengths, model.config, search)

    def behind_prompt(self, state: DecodingState, search: Search) -> DecodingState:
        """The state behind all tokens of a prompt but the last, as wide as the first cache."""
        config = self.model.config
        prompt = prompt_of(search, config)
        before = prompt_room(prompt, config)
        if not before:
            return state
        tokens, count = filled(prompt, before, config)[:-1], jnp.asarray(len(prompt) - 1)
        width = stages(config.max_length, before)[0]
        return run(self.parts, reading, state, tokens, count, width, search.rule != EXACT)


def filled_rows(rows: list[int]) -> list[int]:
    """The rows and, again, the first of them, so that there are a power of two."""
    return rows + rows[:1] * (power_of_two(len(rows)) - len(rows))


def of_rows(state: DecodingState, rows: Int[Array, "B"]) -> DecodingState:
    """The state of some of the sources, of which nothing is written."""
    return jax.tree.map(lambda array: array[rows], state._replace(columns=()))._replace(columns=0)


def run(parts: Parts, function: Callable[..., Any], *given: Any) -> Any:
    """A function of a model and arrays, compiled; numbers and flags are part of the program."""
    graph, weights = parts
    static = tuple(3 + at for at, value in enumerate(given) if isinstance(value, int))
    with CALLING:
        return program(on_processor(weights), static)(function, graph, weights, *given)


@functools.cache
def program(on_processor: bool, static: tuple[int, ...]) -> Any:
    """The compiled ``call``."""
    options = BARRIERS_STAY if on_processor else None
    return jax.jit(call, static_argnums=(0, 1, *static), compiler_options=options)


def call(function: Callable[..., Any], graph: Any, weights: Any, *given: Any) -> Any:
    """A function of the model of a graph and its weights."""
    return function(nnx.merge(graph, weights), *given)


def listening(model: Transformer, source: Source) -> DecodingState:
    """What is kept of a source."""
    return listened(model, source)


def reading(
    model: Transformer,
    state: DecodingState,
    tokens: Int[Array, "P"],
    count: Int[Array, ""],
    width: int,
    whole: bool,
) -> DecodingState:
    """The state behind the first tokens, with room for so many columns in all."""
    return with_room(after_prompt(model, tokens, state, whole, count), width)


def scoring(
    model: Transformer, state: DecodingState, tokens: Int[Array, "P"]
) -> Float[Array, "B P V"]:
    """The logits after each of the tokens."""
    tokens = jnp.broadcast_to(tokens, (len(state.seen), len(tokens)))
    states, _ = next_states(model, tokens, with_room(state, tokens.shape[1]), whole=True)
    return model.project(states)
