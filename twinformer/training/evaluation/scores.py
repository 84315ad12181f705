"""Scores of outputs against references: error rates for pronunciations, BLEU and chrF for text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from training_recipe.corpora.corpus import Example
from transformer_spec.errors import UserError

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

BRACKETS = r"[<\[][^>\]]*[>\]]|\([^)]+?\)"
Direction = Literal["lower", "higher"]


@dataclass(frozen=True)
class Scores:
    """Scores by name, in percent; ``best`` names the main one and whether lower or higher wins."""

    values: dict[str, float]
    best: tuple[str, Direction]
    signatures: dict[str, str] = field(default_factory=dict)

    @property
    def main(self) -> float:
        """The value of the main score."""
        return self.values[self.best[0]]

    def is_better_than(self, other: float) -> bool:
        """Whether the main score beats another value of it."""
        return self.main < other if self.best[1] == "lower" else self.main > other

    def line(self) -> str:
        """One line for people: ``WER 34.21  PER 8.05``."""
        return "  ".join(f"{name} {value:.2f}" for name, value in self.values.items())


def score(
    task: str, hypotheses: Sequence[str], examples: Sequence[Example], tokenize: str = "13a"
) -> Scores:
    """Score one output for each example; ``tokenize`` is sacrebleu's, used for BLEU alone.

    Raises UserError for an unknown tokenization, ValueError for an unknown task or unequal numbers.
    """
    if not examples or len(hypotheses) != len(examples):
        raise ValueError(f"{len(hypotheses)} outputs cannot be scored by {len(examples)} examples")
    if task == "pronunciation":
        return error_rates(hypotheses, examples)
    if task == "translation":
        return translation_scores(hypotheses, examples, tokenize)
    if task == "transcription":
        return transcription_scores(hypotheses, examples)
    raise ValueError(f"there is no task {task!r}; choose pronunciation, translation, transcription")


def error_rates(hypotheses: Sequence[str], examples: Sequence[Example]) -> Scores:
    """WER: share of outputs that equal no alternative; PER: phoneme errors per reference phoneme.

    Each output is counted against its closest alternative, the first of equally close ones.
    """
    distances, lengths = [], []
    for hypothesis, example in zip(hypotheses, examples, strict=True):
        distance, length = _closest(hypothesis.split(), example.targets)
        distances.append(distance)
        lengths.append(length)
    wrong = sum(distance > 0 for distance in distances)
    values = {
        "WER": 100.0 * wrong / len(distances),
        "PER": 100.0 * sum(distances) / max(1, sum(lengths)),
    }
    return Scores(values, ("WER", "lower"))


def transcription_scores(hypotheses: Sequence[str], examples: Sequence[Example]) -> Scores:
    """WER and CER: errors for each word and each character of the references, all put together.

    Texts are compared as ``plain`` has them. Each output is counted against its closest target.
    """
    counts = {"WER": [0, 0], "CER": [0, 0]}
    for hypothesis, example in zip(hypotheses, examples, strict=True):
        targets = [plain(target) for target in example.targets]
        for name, cut in (("WER", str.split), ("CER", list)):
            distance, length = _nearest(cut(plain(hypothesis)), [cut(text) for text in targets])
            counts[name][0] += distance
            counts[name][1] += length
    values = {name: 100.0 * wrong / max(1, of) for name, (wrong, of) in counts.items()}
    return Scores(values, ("WER", "lower"))


def plain(text: str) -> str:
    """A text without what is not said: small letters and digits, words with blanks between.

    What stands in brackets is left out, marks and signs are blanks (Radford et al. 2022, appendix
    C, for all languages).
    """
    text = unicodedata.normalize("NFKC", re.sub(BRACKETS, "", text.lower()))
    kept = (" " if unicodedata.category(letter)[0] in "MSP" else letter for letter in text)
    return " ".join("".join(kept).split())


def _closest(phonemes: list[str], alternatives: Sequence[str]) -> tuple[int, int]:
    """(edit distance to the closest alternative, that alternative's length), in phonemes."""
    return _nearest(phonemes, [alternative.split() for alternative in alternatives])


def _nearest(parts: list[str], references: list[list[str]]) -> tuple[int, int]:
    """(edit distance to the closest reference, that reference's length), in parts of texts."""
    from rapidfuzz.distance import Levenshtein

    distances = [Levenshtein.distance(parts, reference) for reference in references]
    closest = distances.index(min(distances))
    return distances[closest], len(references[closest])


def translation_scores(
    hypotheses: Sequence[str], examples: Sequence[Example], tokenize: str = "13a"
) -> Scores:
    """Corpus BLEU and chrF by sacrebleu against all targets, with its signatures."""
    from sacrebleu.metrics.chrf import CHRF

    metrics = {"BLEU": bleu(tokenize), "chrF": CHRF()}
    streams = _reference_streams(examples)
    values, signatures = {}, {}
    for name, metric in metrics.items():
        values[name] = float(metric.corpus_score(list(hypotheses), streams).score)
        signatures[name] = metric.get_signature().format()
    return Scores(values, ("BLEU", "higher"), signatures)


def bleu(tokenize: str) -> BLEU:
    """sacrebleu's BLEU; a tokenization that it does not have is a UserError."""
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        allowed = ", ".join(BLEU.TOKENIZERS)
        raise UserError(
            f"--bleu-tokenize {tokenize}: sacrebleu has no such tokenization; choose {allowed}"
        )
    try:
        # force: text that is already tokenized is no reason for a warning on every evaluation.
        return BLEU(tokenize=tokenize, force=True)
    except RuntimeError as error:
        raise UserError(f"--bleu-tokenize {tokenize} cannot be used: {error}") from None


def _reference_streams(examples: Sequence[Example]) -> list[list[str | None]]:
    """sacrebleu's form: the n-th references of all examples together, None where there is none."""
    most = max(len(example.targets) for example in examples)
    return [
        [example.targets[n] if n < len(example.targets) else None for example in examples]
        for n in range(most)
    ]
