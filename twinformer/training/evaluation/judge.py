"""Judging a model: loss on held-out batches, and scores of what it says to held-out sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training_recipe.backend import Backend
from training_recipe.batching.batches import Batch, BatchPlan
from training_recipe.batching.encoded import sound_files_of
from training_recipe.corpora.corpus import Example
from training_recipe.options.settings import TrainingSettings
from training_recipe.preparation import Prepared
from training_recipe.searching.batches import decode_all, within
from training_recipe.searching.search import Search
from transformer_spec import source_positions
from twinformer.training.evaluation.collapse import token_spread
from twinformer.training.evaluation.scores import Scores, score

Check = Callable[[], None]


def held_out_loss(backend: Backend, plan: BatchPlan, check: Check) -> float:
    """Cross-entropy per target token in nats over one epoch; ``check`` may raise in between."""
    loss, tokens = 0.0, 0
    for number in range(1, plan.batches_per_epoch + 1):
        check()
        batch_loss, batch_tokens = backend.evaluate(plan.batch(number))
        loss += float(batch_loss)
        tokens += int(batch_tokens)
    return loss / tokens


def spread(examples: Sequence[Example], count: int | None) -> list[Example]:
    """``count`` examples evenly spread over all, always the same ones; all where count is None."""
    if count is None or count >= len(examples):
        return list(examples)
    return [examples[number * len(examples) // count] for number in range(count)]


@dataclass(frozen=True)
class Judgement:
    """What the model said to ``examples``, how good that is, and the loss where it was taken."""

    loss: float | None
    scores: Scores | None
    examples: list[Example]
    outputs: list[str]
    too_long: int = 0
    token_spread: float | None = None

    @property
    def main(self) -> tuple[str, float]:
        """Name and value of what checkpoints are compared by: the main score, else the loss."""
        if self.scores is None:
            return "loss", self.loss or 0.0
        return self.scores.best[0], self.scores.main

    def record(self) -> dict[str, Any]:
        """Loss and token spread, where they were taken, and scores, as metrics.jsonl has them."""
        taken = {"loss": self.loss, "token_spread": self.token_spread}
        taken = {name: value for name, value in taken.items() if value is not None}
        return taken | {"scores": self.scores.values if self.scores else {}}

    def is_better_than(self, other: float, loss: float | None) -> bool:
        """Whether ``main`` beats another value of the same name; of equal ones the lower loss does.

        BLEU of texts of a word each is 0 whatever was learnt. Older runs do not say the best one's
        loss: of equal ones the newer is better there.
        """
        if self.scores is None:
            return self.main[1] < other
        if self.scores.main == other and self.loss is not None:
            return loss is None or self.loss < loss
        return self.scores.is_better_than(other)


class Judge:
    """Validates and tests a backend's model; ``check`` may raise between batches."""

    def __init__(
        self, backend: Backend, prepared: Prepared, settings: TrainingSettings, check: Check
    ) -> None:
        self.backend, self.prepared, self.settings = backend, prepared, settings
        self.check = check

    def validate(self) -> Judgement:
        """Loss on all validation pairs, scores of greedy outputs for some examples."""
        loss = held_out_loss(self.backend, self.prepared.valid_plan, self.check)
        examples = spread(self.prepared.corpus.valid, self.settings.valid_examples)
        judged = self._judge(loss, examples, self._search(beam=1))
        return replace(judged, token_spread=self._token_spread(self.prepared.valid_plan.batch(1)))

    def _token_spread(self, batch: Batch) -> float:
        config = self.prepared.config
        real = batch.source != config.pad_id
        if config.feature_dim:
            heard = (batch.target_out != config.pad_id).any(1, keepdims=True)
            real = heard.repeat(source_positions(batch.source.shape, config), 1)
        return token_spread(self.backend.encode(batch.source), real)

    def test(self) -> Judgement:
        """Scores of the outputs for the test examples."""
        penalty = self.settings.length_penalty
        search = self._search(beam=self.settings.beam, length_penalty=penalty)
        examples = spread(self.prepared.corpus.test, self.settings.test_examples)
        return self._judge(None, examples, search)

    def _search(self, **changes: Any) -> Search:
        """The model's own search, which draws nothing here, for one output of each source."""
        return replace(self.prepared.search, nbest=1, sample=False, **changes)

    def _judge(self, loss: float | None, examples: list[Example], search: Search) -> Judgement:
        if not examples:
            return Judgement(loss, None, [], [])
        outputs, too_long = self._outputs(examples, search)
        task, tokenize = self.prepared.corpus.task, self.settings.bleu_tokenize
        scores = score(task, outputs, examples, tokenize)
        return Judgement(loss, scores, examples, outputs, too_long)

    def _outputs(self, examples: list[Example], search: Search) -> tuple[list[str], int]:
        """The best output for each example, and how many sources were too long to be read.

        A source longer than the model takes has the empty text as its output.
        """
        prepared, longest = self.prepared, self.prepared.config.max_source_length
        most = prepared.config.max_length - max(0, len(search.prompt) - 1)
        most = min(most, prepared.longest_target)
        search = replace(search, max_length=most, min_length=min(search.min_length, most))
        sources = [prepared.source_vocabulary.encode(example.source) for example in examples]
        frame = prepared.source_vocabulary.frame
        room = longest - frame.size
        fitting = [number for number, ids in enumerate(sources) if len(ids) <= room]
        found = decode_all(
            self.backend.decode,
            [sources[number] for number in fitting],
            search,
            within(self.settings.batch_tokens, search.beam),
            prepared.config,
            lambda count: self.check(),
            frame,
            sound_files_of((prepared.source_vocabulary, prepared.target_vocabulary)),
            self.backend.workers,
        )
        outputs = [""] * len(examples)
        for number, hypotheses in zip(fitting, found, strict=True):
            outputs[number] = prepared.target_vocabulary.decode(hypotheses[0].ids)
        return outputs, len(examples) - len(fitting)
