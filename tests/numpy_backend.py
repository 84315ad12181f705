"""A small honest backend in NumPy, so that the loop is tested without a framework.

Logits of target position t: a row for the token before, a row for the source token at t, and the
mean row of all source tokens (with dropout). Trained by Adam, it learns letter-by-letter spelling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training_recipe.backend import StepResult
from training_recipe.batching.batches import Batch
from training_recipe.options.settings import TrainingSettings
from training_recipe.runs.averages import record_mean
from training_recipe.searching.search import Hypothesis, Search
from transformer_spec import TransformerConfig, UserError

DROPOUT = 0.1


class NumpyBackend:
    name = "torch"  # a name that settings.json may hold

    def __init__(self, config: TransformerConfig, settings: TrainingSettings) -> None:
        self.config, self.settings = config, settings
        V, W = config.source_vocab_size, config.target_vocab_size
        rng = np.random.default_rng(settings.seed)
        shapes = {"before": (W, W), "aligned": (V, W), "bag": (V, W)}
        self.weights = {name: 0.01 * rng.normal(size=shape) for name, shape in shapes.items()}
        self.moments = {
            f"{order}/{name}": np.zeros(shape)
            for order in ("first", "second")
            for name, shape in shapes.items()
        }

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
        w = self.weights
        logits = w["before"][before] + w["aligned"][aligned] + (bag @ w["bag"])[:, None]
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))

    def train_step(self, batch: Batch, step: int, learning_rate: float, *more: Batch) -> StepResult:
        total = sum(part.tokens for part in (batch, *more))
        sums = {name: np.zeros_like(w) for name, w in self.weights.items()}
        loss = sum(self._add_gradients(part, step, total, sums) for part in (batch, *more))
        self._adam(sums, step, learning_rate)
        norm = np.sqrt(sum(np.square(g).sum() for g in sums.values()))
        return StepResult(loss, total, norm)

    def _add_gradients(self, batch: Batch, step: int, total: int, sums: dict) -> float:
        aligned, bag = self._inputs(batch.source, batch.target_in.shape[1])
        bag *= np.random.default_rng((self.settings.seed, step)).random(bag.shape) > DROPOUT
        logs = self._log_probabilities(batch.target_in, aligned, bag)
        real = batch.target_out != self.config.pad_id
        chosen = np.take_along_axis(logs, batch.target_out[..., None].astype(np.int64), -1)[..., 0]
        picked = np.zeros_like(logs)
        np.put_along_axis(picked, batch.target_out[..., None].astype(np.int64), 1.0, -1)
        error = (np.exp(logs) - picked) * real[..., None] / total
        np.add.at(sums["before"], batch.target_in, error)
        np.add.at(sums["aligned"], aligned, error)
        sums["bag"] += bag.T @ error.sum(axis=1)
        return -(chosen * real).sum()

    def _adam(self, gradients: dict[str, np.ndarray], step: int, learning_rate: float) -> None:
        s = self.settings
        for name, gradient in gradients.items():
            first, second = self.moments[f"first/{name}"], self.moments[f"second/{name}"]
            first += (1 - s.adam_beta1) * (gradient - first)
            second += (1 - s.adam_beta2) * (np.square(gradient) - second)
            scale = np.sqrt(second / (1 - s.adam_beta2**step)) + s.adam_eps
            self.weights[name] -= learning_rate * first / (1 - s.adam_beta1**step) / scale

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        aligned, bag = self._inputs(batch.source, batch.target_in.shape[1])
        logs = self._log_probabilities(batch.target_in, aligned, bag)
        real = batch.target_out != self.config.pad_id
        chosen = np.take_along_axis(logs, batch.target_out[..., None].astype(np.int64), -1)[..., 0]
        return float(-(chosen * real).sum()), int(real.sum())

    def encode(self, source: np.ndarray) -> np.ndarray:
        return self.weights["aligned"][source]

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

    def arrays(self) -> dict[str, np.ndarray]:
        return self.weights | self.moments

    def save(self, folder: Path) -> None:
        np.savez(folder / "arrays.npz", **self.arrays())

    def restore(self, folder: Path) -> None:
        with np.load(folder / "arrays.npz") as saved:
            for name, array in self.arrays().items():
                if saved[name].shape != array.shape:
                    raise UserError(
                        f"{folder}: {name} has shape {saved[name].shape}, not {array.shape}"
                    )
                array[...] = saved[name]

    def use(self, folder: Path) -> None:
        self.restore(folder)

    def average(self, folders: list[Path], destination: Path) -> None:
        parts = [dict(np.load(folder / "arrays.npz")) for folder in folders]
        means = {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}
        np.savez(destination / "arrays.npz", **means)
        record_mean(folders, destination)


def make_backend(
    config: TransformerConfig, settings: TrainingSettings, weights: dict | None
) -> NumpyBackend:
    return NumpyBackend(config, settings)
