"""Why two models differ: the first sub-step that departs, and the slip that explains it."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import torch_transformer
from parity.inputs import Ids
from parity.measures import STEP_BOUND, allowed, largest, largest_difference
from parity.mutations import MUTATIONS
from parity.patches import patched
from parity.recording import EndsAt, recorded_torch, twin_first_layers, twin_modules
from parity.sides import Side, Trace, as_float64
from parity.subjects import Subject
from parity.substeps import LOGITS, over_source
from transformer_spec import TransformerConfig


@dataclass(frozen=True)
class Cause:
    """A slip that makes one side compute what the other does, up to ``left``.

    ``side`` is the one that is changed: "b" where the slip was undone, "a" where it was planted.
    """

    name: str
    what: str
    side: str
    left: float

    def __str__(self) -> str:
        """``LayerNorm epsilon: A 1e-05, B 1e-06`` where there are two values of one knob."""
        new, two_values, old = self.what.partition(" for ")
        if not two_values:
            return f"{self.name}: {self.what} ({'in B' if self.side == 'a' else 'undone in B'})"
        one, other = (old, new) if self.side == "a" else (new, old)
        return f"{self.name}: A {one}, B {other}"

    def to_dict(self) -> dict[str, Any]:
        return {"cause": self.name, "in_words": str(self), "difference_left": self.left}


class _Reached(Exception):
    """The sub-step that was asked for has been computed."""


def explain(
    sides: tuple[Side, Side],
    truths: tuple[Trace, Trace],
    ids: Ids,
    first: str,
    progress: Callable[[str], object] = lambda _: None,
) -> list[Cause]:
    """Every known slip that accounts for the whole difference, the best first.

    ``truths`` are the float64 traces of ``ids``, ``first`` the first sub-step that departs. A slip
    that loses numbers cannot be undone in B, so that each is planted in A as well. A side without
    weights is only compared with.
    """
    causes, seen = [], set(truths[0]) & set(truths[1])
    for side, truth, label in ((sides[1], truths[0], "b"), (sides[0], truths[1], "a")):
        if not side.weights:
            continue
        for name, what, subject in candidates(subject_of(side), first, seen):
            progress(f"explaining: {name}")
            left = difference(subject, truth, ids, first)
            if math.isfinite(left):
                causes.append(Cause(name, what, label, left))
    best = sorted(causes, key=lambda cause: cause.left)
    return list({str(cause): cause for cause in reversed(best)}.values())[::-1]


def subject_of(side: Side) -> Subject:
    weights = {n: x.astype(np.float64) for n, x in (side.weights or {}).items()}
    return Subject(side.config, weights)


def candidates(
    wrong: Subject, first: str, seen: Collection[str]
) -> Iterator[tuple[str, str, Subject]]:
    """Every variant of every mutation that could change the first sub-step that departs.

    ``seen`` are the sub-steps that both sides show: where these are the logits alone, a slip in any
    weight could.
    """
    anywhere = set(seen) == {LOGITS}
    for mutation in MUTATIONS:
        for what, subject in mutation.variants(wrong):
            if anywhere or may_explain(wrong, subject, first):
                yield mutation.name, what, subject


def may_explain(wrong: Subject, subject: Subject, first: str) -> bool:
    """Changed weights alone explain nothing unless some of them are used near there."""
    if subject.config != wrong.config or subject.patches != wrong.patches:
        return True
    changed = [n for n, x in subject.weights.items() if x is not wrong.weights.get(n)]
    return any(place_of(name) == place_of(first) for name in changed)


def place_of(name: str) -> str:
    """The layer of a weight or sub-step; tables and what is made of them count as one place."""
    parts = name.removesuffix(" input").split(".")
    if parts[1] in ("enc_layers", "dec_layers"):
        return ".".join(parts[:3])
    return "output" if name.startswith((LOGITS, "decoder.final")) else "embeddings"


def difference(subject: Subject, truth: Trace, ids: Ids, first: str) -> float:
    """Largest difference of the logits; infinite where they or ``first`` still are not the same."""
    left = math.inf
    for step in dict.fromkeys((first, LOGITS)):
        found, right = run(subject, ids, until=step).get(step), truth[step]
        if found is None or found.shape != right.shape:
            return math.inf
        mask = ids.real(subject.config)[0 if over_source(step) else 1]
        left = largest_difference(found, right, mask)
        if not left <= allowed(STEP_BOUND, largest(right[mask])):
            return math.inf
    return left


def run(subject: Subject, ids: Ids, until: str | None = None, dtype: str = "float64") -> Trace:
    """The subject's sub-steps; ``until`` ends the pass as soon as that one is there."""
    with patched(subject.patches), torch.no_grad():
        model = model_of(subject.config, subject.weights, getattr(torch, dtype))
        modules = twin_modules(model)
        found = EndsAt(until, _Reached())
        with (
            contextlib.suppress(_Reached),
            recorded_torch(model, modules, twin_first_layers(model), found),
        ):
            model(*(torch.from_numpy(array) for array in ids))
    return {name: as_float64(x) for name, x in found.items()}


@functools.lru_cache(maxsize=4)
def _skeleton(config: TransformerConfig, dtype: torch.dtype) -> torch_transformer.Transformer:
    return torch_transformer.Transformer.skeleton(config, dtype)


def model_of(
    config: TransformerConfig, weights: dict, dtype: torch.dtype
) -> torch_transformer.Transformer:
    """The PyTorch twin around weights; float64 ones are not copied, and none are drawn first.

    The same object comes back for the same config, with other weights.
    """
    model = _skeleton(config, dtype)
    tensors = {n: torch.from_numpy(np.ascontiguousarray(x)).to(dtype) for n, x in weights.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()
