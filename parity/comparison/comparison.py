"""The comparison of two models: every sub-step, the loss and every gradient, in every precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parity.comparison.causes import (
    explain,
    hidden_apart,
    other_weights,
    padding_in_front,
    tensors_apart,
)
from parity.comparison.finite import check_traces, check_weights
from parity.comparison.memory import Plan, limit_of, needs, plan
from parity.comparison.report import Cause, Departure, Report, Rounding, Row, SideSummary
from parity.comparison.rounding import agreement_of, not_computed, rounding, with_errors
from parity.comparison.rows import Traces, gradient_rows, step_rows, unseen
from parity.comparison.settings import Settings
from parity.comparison.tables import table_causes, table_rows
from parity.comparison.text import EVERY_ROW, GRADIENT
from parity.forward.features import read_features
from parity.forward.ids import Ids, generated, generated_targets, read_ids
from parity.forward.measures import differing, in_proportion, mask_of
from parity.forward.probabilities import check_logits_alone, made_of
from parity.forward.substeps import LOGITS
from parity.frameworks import check_devices, exact_numbers
from parity.sides.opening import (
    check_comparable,
    different_settings,
    open_sides,
    settings_not_judged,
)
from parity.sides.side import Side, Trace
from parity.sides.texts import read_texts
from parity.sound.comparison import Compared, compared, heard
from transformer_spec import Faults, TransformerConfig

Said = Callable[[str], object]
LONGEST_SOURCE = "max_source_length"


def compare(a: str, b: str, settings: Settings | None = None, say: Said = lambda _: None) -> Report:
    """Whether A and B, each what ``python -m parity`` takes, are the same function.

    ``say`` is told what is being done. What cannot be compared is a UserError. JAX computes with
    64-bit numbers from here on.
    """
    settings = settings or Settings()
    faults = Faults()
    settings.find_faults(faults)
    faults.raise_if_any("cannot compare")
    exact_numbers()
    say("reading")
    sides = open_sides(a, b, settings.frameworks, settings.verify)
    for side, device in zip(sides, settings.devices, strict=True):
        side.device = device
    check_devices((label, s.framework, s.device) for label, s in zip("AB", sides, strict=True))
    return compare_sides(*sides, settings, say)


def compare_sides(a: Side, b: Side, settings: Settings, say: Said = lambda _: None) -> Report:
    """The report on two open sides."""
    check_comparable(a, b)
    batches = ids_for(a, b, settings)
    sound = front_ends(a, b, settings)
    how = prepared(a, b, batches, settings)
    check_weights(a, b)
    say("float64")
    truths = [(a.trace(ids, "float64"), b.trace(ids, "float64")) for ids in batches]
    check_traces(truths, batches, a.config)
    check_kind((a, b), truths[0])
    rows = [*sound.rows, *step_rows(a, truths, batches)]
    notes = [*how.notes, *sound.notes, *unseen(a, b, truths)]
    for held, found in zip((rows, notes), table_rows(a, b, batches), strict=True):
        held += found
    if how.gradients:
        say("gradients")
        for held, found in zip((rows, notes), gradient_rows(a, b, batches), strict=True):
            held += found
    configs, judged = (a.config, b.config), judged_settings(a.config, batches, rows)
    rounded = in_formats(a, b, settings.precisions, (rows, truths[0], batches[0]), say)
    report = Report(
        a=described(a),
        b=described(b),
        settings=replace(settings, gradients=how.gradients),
        batches=tuple(tuple(part.shape for part in ids) for ids in batches),
        config=b.config.to_dict(),
        different_settings=different_settings(*configs, judged),
        not_judged=settings_not_judged(*configs, judged),
        notes=(*notes, *rounded.notes),
        agreement=agreement_of(truths, batches, a.config),
        rows=tuple(rounded.rows),
        budget=rounded.budget,
    )
    if report.same:
        say("tensors")
        return with_unshown(report, a, b)
    wanted = settings.explain and not how.streamed
    found = with_causes(report, (a, b), truths, batches, say if wanted else None)
    return replace(found, causes=(*sound.causes, *(found.causes or ()))) if sound.causes else found


def with_unshown(report: Report, a: Side, b: Side) -> Report:
    """A report on the same function with the settings and tensors that differ all the same."""
    whole = {row.part.removeprefix(EVERY_ROW) for row in report.rows}
    unshown = {**report.different_settings, **report.not_judged}
    return replace(report, weights=hidden_apart(a, b, whole), not_judged=unshown)


def check_kind(sides: tuple[Side, Side], traces: tuple[Trace, Trace]) -> None:
    """Probabilities of one side beside logits of the other are a UserError; both may have them."""
    kinds = [made_of(trace[LOGITS]) for trace in traces]
    for side, trace in zip(sides, traces, strict=True) if None in kinds else ():
        check_logits_alone(side.given, trace[LOGITS])


def judged_settings(
    config: TransformerConfig, batches: Sequence[Ids], rows: Sequence[Row]
) -> set[str]:
    """Settings that these rows of A and ids show, and other ones do not."""
    start = config.decoder_start_id
    padded = start == config.pad_id and any((ids.target[:, 0] == start).any() for ids in batches)
    learned = any(row.part.startswith(GRADIENT) for row in rows)
    shown = {"decoder_start_id": padded, "tied_embeddings": learned}
    return {name for name, holds in shown.items() if holds}


class Rounded(NamedTuple):
    """Rows with what number formats round, what they do to the logits, and what is left out."""

    rows: list[Row]
    budget: dict[str, Rounding]
    notes: list[str]


def in_formats(
    a: Side,
    b: Side,
    precisions: Sequence[str],
    judged: tuple[list[Row], tuple[Trace, Trace], Ids],
    say: Said,
) -> Rounded:
    """``judged`` rows in number formats: by the float64 traces of some ids."""
    (rows, truth, ids), budget, notes = judged, dict[str, Rounding](), list[str]()
    for name in precisions:
        say(name)
        runs = a.trace(ids, name), b.trace(ids, name)
        notes += not_computed(name, a, b, runs)
        rows = with_errors(rows, name, runs, truth, ids, a.config)
        found = rounding(name, runs, truth, ids, a.config)
        budget |= {} if found is None else {name: found}
    return Rounded(rows, budget, notes)


def front_ends(a: Side, b: Side, settings: Settings) -> Compared:
    """The features of the recording by every front end that there is."""
    if settings.audio is None:
        return Compared()
    config = shorter_config(a.config, b.config)
    given = None
    if settings.features is not None:
        given = read_features(Path(settings.features), config, whole=True)[0].source[0]
    return compared(heard(Path(settings.audio), config), (a, b), given)


def prepared(a: Side, b: Side, batches: list[Ids], settings: Settings) -> Plan:
    """How to compare within the memory there is; the weights are read where they all fit."""
    can_stream = a.can_stream and b.can_stream
    how = plan(needs(a, b, batches), limit_of(settings.max_ram), settings.gradients, can_stream)
    for side in (a, b):
        side.streamed = how.streamed
        if not how.streamed:
            side.read_all()
    return how


def with_causes(
    report: Report, sides: tuple[Side, Side], truths: Traces, batches: list[Ids], say: Said | None
) -> Report:
    """The report of two models that differ with where that begins.

    With ``say``, which is told what is being tried, with what explains it as well.
    """
    failed = (row.part for row in report.rows if not row.passed)
    step = next((part for part in failed if part in truths[0][0]), None)
    if step is None:
        tables = table_causes(*sides, report.rows)
        return replace(report, causes=tables or gradient_causes(*sides, report.rows))
    first = departure(step, truths, batches, sides[0])
    if say is None:
        return replace(report, first=first)
    causes, tensors = (), tensors_apart(*sides)
    if in_front := padding_in_front(truths, batches, sides[0].config, step):
        causes = (in_front,)
    elif not other_weights(*sides):
        causes = tuple(explain(sides, truths[first.batch], batches[first.batch], step, say))
    return replace(report, first=first, causes=causes, weights=None if causes else tensors)


def departure(step: str, truths: Traces, batches: list[Ids], side: Side) -> Departure:
    """Where a sub-step differs most, in the batch in which it does."""
    masks = [mask_of(step, ids, side.config) for ids in batches]
    sizes = [
        differing(step, one[step], other[step], mask)[0]
        for (one, other), mask in zip(truths, masks, strict=True)
    ]
    k = int(np.argmax(np.nan_to_num(sizes, nan=np.inf)))
    one, other = (truth[step] for truth in truths[k])
    if one.shape != other.shape:
        return Departure(step, k, (), np.nan, np.nan, np.inf)
    apart = np.zeros_like(one)
    factors, _ = in_proportion(step, one[masks[k]])
    apart[masks[k]] = (np.abs(one - other) * factors)[masks[k]]
    at = np.unravel_index(int(np.nan_to_num(apart, nan=np.inf).argmax()), apart.shape)
    place = tuple(int(i) for i in at)
    return Departure(step, k, place, float(one[at]), float(other[at]), sizes[k])


def gradient_causes(a: Side, b: Side, rows: tuple[Row, ...]) -> tuple[Cause, ...] | None:
    """What makes equal models learn differently: the same numbers tied in one of them alone."""
    ties = a.config.tied_embeddings, b.config.tied_embeddings
    if ties[0] == ties[1] or all(row.passed for row in rows):
        return None
    return (Cause("tie", f"tied embeddings: A {ties[0]!r}, B {ties[1]!r}"),)


def described(side: Side) -> SideSummary:
    return SideSummary(side.given, side.what, side.framework, side.device)


def ids_for(a: Side, b: Side, settings: Settings) -> list[Ids]:
    """The user's ids, texts or features, or generated ones, that both models can take."""
    shorter = shorter_config(a.config, b.config)
    check_inputs(settings, shorter)
    whole = a.whole_sources or b.whole_sources
    if settings.audio is not None:
        sound = heard(Path(settings.audio), shorter)
        target = generated_targets(shorter, 1, settings.seed)
        return [Ids(sound.features[None].astype(np.float32), target)]
    if settings.features is not None:
        return read_features(Path(settings.features), shorter, settings.seed, whole)
    if settings.ids is not None:
        return read_ids(Path(settings.ids), shorter)
    if settings.text is not None:
        return read_texts(Path(settings.text), (a.given, b.given), shorter)
    return generated(shorter, settings.longest, settings.seed, settings.padding, whole)


def shorter_config(a: TransformerConfig, b: TransformerConfig) -> TransformerConfig:
    """A's config with the lengths that both models can take."""
    lengths = {
        name: min(getattr(a, name), getattr(b, name)) for name in ("max_length", LONGEST_SOURCE)
    }
    return replace(a, **lengths)


def check_inputs(settings: Settings, config: TransformerConfig) -> None:
    """Files of tokens for models that read features, or the other way round, are a UserError."""
    faults = Faults()
    if config.feature_dim:
        for name in ("ids", "text"):
            told = f"--{name}: the models read features, not tokens; give --audio or --features"
            faults.require(getattr(settings, name) is None, told)
    for name in () if config.feature_dim else ("features", "audio"):
        told = f"--{name}: the models read tokens; give --ids or --text"
        faults.require(getattr(settings, name) is None, told)
    faults.raise_if_any("cannot compare")
