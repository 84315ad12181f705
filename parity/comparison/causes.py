"""Why two models differ: the slip that explains the first sub-step that departs, or the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from parity.comparison.report import NO_SLIP, Cause
from parity.forward.ids import Ids
from parity.forward.measures import STEP_BOUND, allowed, differing, largest, mask_of
from parity.forward.substeps import LOGITS, over_source
from parity.forward.used_settings import uses
from parity.mutations.running import run
from parity.mutations.subjects import Mutation, Subject, Variants, with_value
from parity.mutations.table import MUTATIONS, UNSEEN
from parity.sides.side import Side, Trace
from transformer_spec import TransformerConfig

# Weights of another number format differ by no more than this share of their largest number.
ROUNDED = 2.0**-7
IN_FRONT = (
    "padding in front of tokens of the target, which one decoder sees and the other does not; with "
    "padding behind them alone both are the same function (--padding behind compares so)"
)


def explain(
    sides: tuple[Side, Side],
    truths: tuple[Trace, Trace],
    ids: Ids,
    first: str,
    progress: Callable[[str], object] = lambda _: None,
) -> list[Cause]:
    """Every known slip that accounts for the whole difference, the best first.

    ``truths`` are the float64 traces of ``ids``, ``first`` the first sub-step that departs. A slip
    that loses numbers cannot be undone in B, so that each is planted in A as well. What it is
    planted in is our twin of a side: one that without any slip is not that side, or is the other
    already, shows nothing of it. Such a side is only compared with, as is one without weights.
    """
    seen = set(truths[0]) & set(truths[1])
    twins = [is_its_twin(sides[k], truths[k], truths[1 - k], ids, first) for k in (0, 1)]
    found = list[Explained]()
    for own, planted in ((1, False), (0, True)):
        if not twins[own]:
            continue
        known = sides[1 - own].config if twins[1 - own] else None
        wrong, right = subject_of(sides[own]), truths[1 - own]
        for mutation, what, subject in candidates(wrong, first, seen, known):
            progress(f"explaining: {mutation.name}")
            left = difference(subject, right, ids, first)
            if math.isfinite(left):
                certain = has_values_of(known, wrong.config, subject.config)
                cause = Cause(mutation.name, in_words(mutation, what, planted), left)
                found.append(Explained(mutation, what, planted, certain, cause))
    return ranked(found)


def is_its_twin(side: Side, own: Trace, other: Trace, ids: Ids, first: str) -> bool:
    """Whether our twin of a side, with nothing planted in it, gives its numbers alone."""
    if not side.weights:
        return False
    subject = subject_of(side)
    near = [math.isfinite(difference(subject, truth, ids, first)) for truth in (own, other)]
    return near == [True, False]


class Explained(NamedTuple):
    """A slip that explains it; ``certain`` where both configs are known to differ in just that."""

    mutation: Mutation
    what: str
    planted: bool
    certain: bool
    cause: Cause


def ranked(found: Sequence[Explained]) -> list[Cause]:
    """The best first: by what is known of the configs, then by what difference is left.

    What undoes itself explains it in either model, and is told of B.
    """
    in_b = {(one.mutation.name, one.what) for one in found if one.planted}
    told = [
        one
        for one in found
        if one.planted or one.mutation.one_way or (one.mutation.name, one.what) not in in_b
    ]
    causes = dict[str, Cause]()
    for one in sorted(told, key=lambda one: (not one.certain, one.cause.difference_left)):
        causes.setdefault(one.cause.in_words, one.cause)
    return list(causes.values())


def has_values_of(
    known: TransformerConfig | None, wrong: TransformerConfig, right: TransformerConfig
) -> bool:
    """Whether settings were changed, each to the value that the other model is known to have."""
    if known is None or wrong == right:
        return False
    names = [field.name for field in fields(wrong)]
    changed = [name for name in names if getattr(wrong, name) != getattr(right, name)]
    return all(getattr(right, name) == getattr(known, name) for name in changed)


def padding_in_front(
    truths: Sequence[tuple[Trace, Trace]],
    batches: Sequence[Ids],
    config: TransformerConfig,
    step: str,
) -> Cause | None:
    """That the two are the same until padding stands in front of tokens of the target.

    A decoder with a look-ahead mask alone is so: it sees such padding as tokens.
    """
    if over_source(step) or not any(ids.behind_padding(config).any() for ids in batches):
        return None
    left = 0.0
    for (one, other), ids in zip(truths, batches, strict=True):
        mask = ids.real(config)[1] & ~ids.behind_padding(config)
        for part in {step, LOGITS}:
            apart, scale = differing(part, one[part], other[part], mask)
            if not apart <= allowed(STEP_BOUND, scale):
                return None
            left = max(left, apart)
    return Cause("padding in front", IN_FRONT, left)


def in_words(mutation: Mutation, what: str, planted: bool) -> str:
    """``LayerNorm epsilon: A 1e-05, B 1e-06`` where there are two values of one knob.

    What makes A of B, not ``planted`` in A, is undone in B, or it is A that has it.
    """
    new, two_values, old = what.partition(" for ")
    if not two_values:
        where = "in B" if planted else "in A" if mutation.one_way else "undone in B"
        return f"{mutation.name}: {what} ({where})"
    one, other = (old, new) if planted else (new, old)
    return f"{mutation.name}: A {one}, B {other}"


def subject_of(side: Side) -> Subject:
    weights = {n: x.astype(np.float64) for n, x in (side.weights or {}).items()}
    return Subject(side.config, weights)


def candidates(
    wrong: Subject, first: str, seen: Collection[str], known: TransformerConfig | None = None
) -> Iterator[tuple[Mutation, str, Subject]]:
    """Every variant of every mutation that could change the first sub-step that departs.

    ``seen`` are the sub-steps that both sides show: where these are the logits alone, a slip in any
    weight could. Where the config of the other model is ``known``, a setting has no third value.
    """
    anywhere = set(seen) == {LOGITS}
    for mutation in (*MUTATIONS, *UNSEEN):
        for what, subject in variants(mutation, wrong, known):
            if anywhere or may_explain(wrong, subject, first):
                yield mutation, what, subject


def variants(mutation: Mutation, wrong: Subject, known: TransformerConfig | None) -> Variants:
    if known is None or mutation.field is None:
        return mutation.variants(wrong)
    used = uses(wrong.config, mutation.field)
    value = getattr(known, mutation.field) if used else None
    return with_value(wrong, mutation.field, value)


def may_explain(wrong: Subject, subject: Subject, first: str) -> bool:
    """Changed weights alone explain nothing unless some of them are used near there."""
    if subject.config != wrong.config or subject.patches != wrong.patches:
        return True
    changed = [n for n, x in subject.weights.items() if x is not wrong.weights.get(n)]
    return any(place_of(name) == place_of(first) for name in changed)


def place_of(name: str) -> str:
    """The layer of a weight or sub-step; tables and what is made of them count as one place."""
    parts = name.removesuffix(" input").split(".")
    if parts[1] == "relative_bias":  # first used where the half's first layer attends
        return f"{parts[0]}.{parts[0][:3]}_layers.0"
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
        mask = mask_of(step, ids, subject.config)
        left, scale = differing(step, right, found, mask)
        if not left <= allowed(STEP_BOUND, scale):
            return math.inf
    return left


def other_weights(a: Side, b: Side) -> bool:
    """Whether every tensor differs by more than rounding: each slip leaves some as they are."""
    pairs = shared_tensors(a, b)
    return bool(pairs) and all(
        one.shape != other.shape or largest(one - other) > ROUNDED * largest(one)
        for one, other in pairs.values()
    )


def tensors_apart(a: Side, b: Side) -> str | None:
    """How many tensors differ, and which first; None where a side shows none."""
    pairs = shared_tensors(a, b)
    apart = [name for name, (one, other) in pairs.items() if not np.array_equal(one, other)]
    if not pairs:
        return None
    if len(apart) == len(pairs):
        return f"all {len(pairs)} tensors differ: these are other weights"
    if not apart:
        return f"all {len(pairs)} tensors are equal, and {NO_SLIP}"
    names = ", ".join(apart[:3]) + (", ..." if len(apart) > 3 else "")
    return (
        f"{len(apart)} of {len(pairs)} tensors differ ({names}); no single known slip explains it"
    )


def hidden_apart(a: Side, b: Side, judged: Collection[str]) -> str | None:
    """Which tensors differ where no number that was compared does; None where none does.

    ``judged`` tensors, which were compared whole, are left out. Where other numbers of two configs
    make up for it, differing weights are the same function.
    """
    one, other = a.weights or {}, b.weights or {}
    names = [name for name in one if name in other and name not in judged]
    apart = [n for n in names if not np.array_equal(_wide(one[n]), _wide(other[n]))]
    if not apart:
        return None
    some = ", ".join(apart[:3]) + (", ..." if len(apart) > 3 else "")
    verb = "differs" if len(apart) == 1 else "differ"
    return (
        f"but {len(apart)} of the {len(names)} tensors that were not compared whole {verb} "
        f"({some}), and nothing that was compared shows it"
    )


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def shared_tensors(a: Side, b: Side) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The weights of both sides in float64, by the names that both have."""
    one, other = a.weights or {}, b.weights or {}
    return {n: (_wide(one[n]), _wide(other[n])) for n in one if n in other}
