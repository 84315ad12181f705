"""Moments of a loop's Adam that are not those of a model's trained weights, one for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from convert.checkpoints.content import Content
from convert.core.rules import Rule
from convert.core.tensors import Held, Joined, Subset, Tensors

UNTRAINED = "a moment of what is never trained here"
NO_MOMENTS = (
    "{} weights have no moments of Adam (frozen, or trained by another optimizer), such as {}: "
    "zeros stand for them"
)


def fit_moments(
    content: Content, rules_of: Callable[[Tensors], list[Rule]]
) -> tuple[Content, dict[str, str], list[str]]:
    """The content with moments of all that is trained and of nothing else.

    Also what is dropped, name -> reason, and what to say.
    """
    layout = content.layout
    given = [name for name in content.tensors if name.startswith(layout.moments)]
    if not given or not content.of_loop:
        return content, {}, []
    rules = rules_of(content.tensors)
    wanted = [n for rule in rules for n in rule.sources if n.startswith(layout.moments)]
    dropped = dict.fromkeys(sorted(set(given) - set(wanted)), UNTRAINED)
    kept = Subset(content.tensors, [name for name in content.tensors if name not in dropped])
    absent = {name: _weight(name, content) for name in wanted if name not in content.tensors}
    dtype, shape_of = content.tensors[given[0]].dtype, content.tensors
    zeros = {
        name: np.broadcast_to(np.zeros((), dtype), shape_of[weight].shape)
        for name, weight in absent.items()
        if weight in shape_of
    }
    if not zeros:
        return replace(content, tensors=kept), dropped, []
    weights = list(dict.fromkeys(absent[name] for name in zeros))
    note = NO_MOMENTS.format(len(weights), weights[0])
    both = Joined(content.tensors.label, [kept, Held(zeros)])
    return replace(content, tensors=both), dropped, [note]


def _weight(moment: str, content: Content) -> str:
    prefix = next(prefix for prefix in content.layout.moments if moment.startswith(prefix))
    return content.layout.weights + moment.removeprefix(prefix)
