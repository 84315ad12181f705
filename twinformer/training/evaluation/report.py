"""What the log says of a validation and of the final test: scores, and outputs to look at."""

from __future__ import annotations

from collections.abc import Sequence

from training_recipe.corpora.corpus import Example
from training_recipe.options.invocation import typed, words
from training_recipe.options.settings import TrainingSettings
from training_recipe.preparation import Prepared
from training_recipe.runs.folder import RunFolder
from twinformer.training.display import table
from twinformer.training.evaluation.collapse import collapse_notes
from twinformer.training.evaluation.judge import Judgement

WORDS_SHOWN = 10
WIDEST_CELL = 60  # characters; longer texts stand below each other


def validation_lines(what: str, found: Judgement, improved: bool, samples: int) -> list[str]:
    """Loss, scores and a few outputs of one validation; ``what`` was validated."""
    said = f"  {found.scores.line()}" if found.scores else ""
    best = "  (best so far)" if improved else ""
    heading = f"validation {what}: loss {found.loss:.4f}{said}{best}"
    shown = output_lines(found.examples, found.outputs, samples)
    return [heading, *shown, *collapse_notes(found.token_spread)]


def final_lines(
    run: RunFolder, prepared: Prepared, found: Judgement, what: str, settings: TrainingSettings
) -> list[str]:
    """The table of ``what``'s test scores, outputs for unseen sources, and what to do next."""
    known = sum(example.source in prepared.corpus.seen for example in found.examples)
    repeated = f", {known:,} with sources of the training data" if known else ""
    lines = ["", f"test {what}, {len(found.examples):,} examples{repeated}:"]
    if found.scores is not None:
        lines += table([(name, f"{value:.2f}") for name, value in found.scores.values.items()])
        lines += [f"  {signature}" for signature in found.scores.signatures.values()]
    if found.too_long:
        limit = f"max_length {prepared.config.max_source_length}"
        limit = "30 s" if prepared.config.feature_dim else limit
        lines.append(f"  {found.too_long:,} sources exceed {limit}: counted as wrong")
    lines += _unseen_lines(prepared, found, settings)
    lines += ["", f"run: {run.path}   curves: {run.curves}"]
    return [*lines, *_next(run, found.examples, prepared.corpus.task)]


def _unseen_lines(prepared: Prepared, found: Judgement, settings: TrainingSettings) -> list[str]:
    """Outputs for sources that are not in the training data, or, where all are, for those.

    What the model of ``init`` was trained on is not known.
    """
    words = prepared.corpus.task == "pronunciation"
    said = list(zip(found.examples, found.outputs, strict=True))
    unseen = [pair for pair in said if pair[0].source not in prepared.corpus.seen]
    which = "the model never saw" if settings.init is None else "that were not trained on here"
    which, shown = (which, unseen) if unseen else ("of the training data", said)
    count = WORDS_SHOWN if words and settings.samples else settings.samples
    if not (count and shown):
        return []
    heading = f"{'words' if words else 'sentences'} {which}:"
    outputs = output_lines([one for one, _ in shown], [output for _, output in shown], count)
    return ["", heading, *outputs]


def _next(run: RunFolder, examples: Sequence[Example], task: str) -> list[str]:
    if task == "transcription":
        file = examples[0].source if examples else "FILE"
        return [f"try: python -m twinformer transcribe {typed(run.path)} {typed(file)}"]
    text = examples[0].source if examples else "text"
    return [f"try: {words('translate')} {typed(run.path)} {typed(text)}"]


def output_lines(examples: Sequence[Example], outputs: Sequence[str], count: int) -> list[str]:
    """``count`` outputs, evenly spread, beside their references."""
    count = min(count, len(examples))
    chosen = [number * len(examples) // count for number in range(count)]
    if not chosen:
        return []
    rows = [
        (examples[n].source, outputs[n] or "(nothing)", " | ".join(examples[n].targets))
        for n in chosen
    ]
    if max(len(cell) for row in rows for cell in row) <= WIDEST_CELL:
        return table([("source", "output", "reference"), *rows])
    names = ("source", "output", "reference")
    return [line for row in rows for line in table(list(zip(names, row, strict=True)))]
