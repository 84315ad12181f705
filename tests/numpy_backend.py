"""A small honest backend in NumPy, so that the loop is tested without a framework.

Of the model it has the embeddings alone: logits of target position t are the mix of the token
before, of the source token at t, and of the mean of all source tokens (with dropout), seen through
a fixed table. Trained by Adam, it learns letter-by-letter spelling; its other weights stay put.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convert.checkpoints import check_checkpoint
from training_recipe.arrays import changed
from training_recipe.backend import Checkpoint, StepResult
from training_recipe.batching.batches import Batch
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Hypothesis, Search
from training_recipe.searching.workers import ONE_WORKER
from transformer_spec import TransformerConfig, trained_names

DROPOUT = 0.1
SOURCE, TARGET = "encoder.embedding.weight", "decoder.embedding.weight"
Tables = dict[str, np.ndarray]


class NumpyBackend:
    name = "torch"  # a name that settings.json may hold, and whose files are written
    workers = ONE_WORKER

    def __init__(
        self, config: TransformerConfig, settings: TrainingSettings, state: Checkpoint
    ) -> None:
        self.config, self.settings = config, settings
        # One table may serve both sides; it has the source's name then.
        self.target = SOURCE if config.tied_embeddings == "all" else TARGET
        shape = config.target_vocab_size, config.hidden_dim
        self.table = np.random.default_rng(settings.seed).normal(size=shape)
        self.restore(state)
        if not state.count:  # knows nothing: the loss is the logarithm of the vocabulary's size
            for name in {SOURCE, self.target}:
                self.weights[name] *= np.float32(0.01)

    def _inputs(self, source: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, T) source tokens beside each target position, (B, V) shares of each token."""
        aligned = np.zeros((len(source), length), np.int64)
        aligned[:, : source.shape[1]] = source[:, :length]
        counts = np.stack([np.bincount(r, minlength=self.config.source_vocab_size) for r in source])
        counts[:, self.config.pad_id] = 0
        return aligned, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def _log_probabilities(
        self, before: np.ndarray, aligned: np.ndarray, bag: np.ndarray
    ) -> np.ndarray:
        source, target = self.weights[SOURCE], self.weights[self.target]
        states = target[before] + source[aligned] + (bag @ source)[:, None]
        logits = states @ self.table.T
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def train_step(self, batches: Sequence[Batch], step: int, learning_rate: float) -> StepResult:
        total = sum(part.tokens for part in batches)
        sums = {name: np.zeros(self.weights[name].shape) for name in (SOURCE, self.target)}
        loss = sum(self._add_gradients(part, step, total, sums) for part in batches)
        self._adam(sums, learning_rate)
        norm = np.sqrt(sum(np.square(g).sum() for g in sums.values()))
        return StepResult(loss, total, norm)

    def _add_gradients(self, batch: Batch, step: int, total: int, sums: Tables) -> float:
        aligned, bag = self._inputs(batch.source, batch.target_in.shape[1])
        bag *= np.random.default_rng((self.settings.seed, step)).random(bag.shape) > DROPOUT
        logs = self._log_probabilities(batch.target_in, aligned, bag)
        real = batch.target_out != self.config.pad_id
        chosen = np.take_along_axis(logs, batch.target_out[..., None].astype(np.int64), -1)[..., 0]
        picked = np.zeros_like(logs)
        np.put_along_axis(picked, batch.target_out[..., None].astype(np.int64), 1.0, -1)
        error = ((np.exp(logs) - picked) * real[..., None] / total) @ self.table
        np.add.at(sums[self.target], batch.target_in, error)
        np.add.at(sums[SOURCE], aligned, error)
        sums[SOURCE] += bag.T @ error.sum(axis=1)
        return -(chosen * real).sum()

    def _adam(self, gradients: Tables, learning_rate: float) -> None:
        s, self.count = self.settings, self.count + 1
        for name, gradient in gradients.items():
            first, second = self.first[name], self.second[name]
            first += (1 - s.adam_beta1) * (gradient - first)
            second += (1 - s.adam_beta2) * (np.square(gradient) - second)
            scale = np.sqrt(second / (1 - s.adam_beta2**self.count)) + s.adam_eps
            move = learning_rate * first / (1 - s.adam_beta1**self.count) / scale
            self.weights[name] -= move.astype(self.weights[name].dtype)

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        aligned, bag = self._inputs(batch.source, batch.target_in.shape[1])
        logs = self._log_probabilities(batch.target_in, aligned, bag)
        real = batch.target_out != self.config.pad_id
        chosen = np.take_along_axis(logs, batch.target_out[..., None].astype(np.int64), -1)[..., 0]
        return float(-(chosen * real).sum()), int(real.sum())

    def encode(self, source: np.ndarray) -> np.ndarray:
        return self.weights[SOURCE][source]

    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        length = search.max_length or self.config.max_length
        aligned, bag = self._inputs(source, max(length, source.shape[1]))
        before = np.full((len(source), 1), self.config.decoder_start_id)
        outputs = []
        for position in range(length):
            here = aligned[:, position : position + 1]
            before = self._log_probabilities(before, here, bag).argmax(axis=-1)
            outputs.append(before[:, 0])
        return [[Hypothesis(self._until_eos(row), 0.0, 0.0)] for row in np.stack(outputs, 1)]

    def _until_eos(self, ids: np.ndarray) -> list[int]:
        ends = np.flatnonzero(ids == self.config.eos_id)
        return ids[: ends[0] if len(ends) else len(ids)].tolist()

    def parts(self) -> Checkpoint:
        held = (self.weights, self.first, self.second)
        weights, first, second = (changed(part, lambda read: read().copy()) for part in held)
        return Checkpoint(weights, first, second, self.count)

    def state(self) -> Checkpoint:
        return self.parts().changed(lambda _, arrays: dict(arrays))

    def restore(self, checkpoint: Checkpoint) -> None:
        check_checkpoint(checkpoint, self.config, np.dtype(self.settings.weight_dtype))
        self.weights, self.count = {n: a.copy() for n, a in checkpoint.weights.items()}, 0
        zeros = {name: np.zeros_like(self.weights[name]) for name in trained_names(self.config)}
        given = (checkpoint.first_moments or zeros, checkpoint.second_moments or zeros)
        self.first, self.second = ({n: a.copy() for n, a in part.items()} for part in given)
        self.count = checkpoint.count


make_backend = NumpyBackend
