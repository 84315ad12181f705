"""The training backend in PyTorch, the twin of flax_transformer/step.py."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from convert.checkpoints import (
    check_checkpoint,
)
from torch_transformer.decoding import decode
from torch_transformer.device import workers_of
from torch_transformer.dropout import SOURCES, Dropout
from torch_transformer.loss import smoothed_cross_entropy
from torch_transformer.model import Transformer
from torch_transformer.placement import placement_of
from torch_transformer.precision import products_in
from torch_transformer.process import find_device
from torch_transformer.weights import numpy_dtype, tensors
from training_recipe.arrays import Header, Parts
from training_recipe.backend import Checkpoint, StepResult
from training_recipe.batching.batches import Batch
from training_recipe.distributed.checks import check_mesh
from training_recipe.distributed.processes import ALONE, World
from training_recipe.options.schedule import ema_decay
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Hypothesis, Search
from training_recipe.searching.workers import ONE_WORKER, Workers
from transformer_spec import TransformerConfig, trained_names
from transformer_spec.dropout_keys import batch_keys

Tensors = dict[str, Tensor]


def objective(
    model: Transformer,
    source: Int[Tensor, "B S"],
    target_in: Int[Tensor, "B T"],
    target_out: Int[Tensor, "B T"],
    smoothing: float,
    dropout: Dropout | None = None,
    padding_gradient: bool = True,
) -> Float[Tensor, ""]:
    """The loss summed over the real tokens of a batch."""
    memory = model.encoder_states(source, dropout)
    states = model.decoder_states(target_in, memory, source, dropout, padding_gradient)
    states = model.scaled(states).flatten(0, 1)
    table, bias = model.output_table, model.decoder.finalFc.bias
    pad_id = model.config.pad_id
    return smoothed_cross_entropy(states, table, bias, target_out.flatten(), pad_id, smoothing)


class Objective(nn.Module):
    """A network whose call is the objective: what is spread over a mesh has one way in."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        source: Int[Tensor, "B S"],
        target_in: Int[Tensor, "B T"],
        target_out: Int[Tensor, "B T"],
        smoothing: float,
        dropout: Dropout | None = None,
        padding_gradient: bool = True,
    ) -> Float[Tensor, ""]:
        arrays = source, target_in, target_out
        return objective(self.network, *arrays, smoothing, dropout, padding_gradient)


class TorchBackend:
    """Fills training_recipe.backend.Backend.

    ``objective`` is around the weights that are trained and the frozen ones; ``averaged`` around
    the averaged ones, where there are any. ``stored`` are the former's weights by name; ``trained``
    is what this process holds of those that are trained, all of it where it is alone.
    """

    name = "torch"

    def __init__(
        self,
        config: TransformerConfig,
        settings: TrainingSettings,
        state: Checkpoint,
        world: World = ALONE,
    ) -> None:
        check_mesh(settings, world.mesh)
        self.config, self.settings, self.world = config, settings, world
        self.device = find_device(settings.device)
        self.placement = placement_of(world, self.device)
        self.objective = self.laid_out()
        self.averaged = self.laid_out() if settings.ema_decay else None
        self.restore(state)

    def laid_out(self) -> Objective:
        """A network without numbers, laid over the devices."""
        dtype = getattr(torch, self.settings.weight_dtype)
        network = Transformer.skeleton(self.config, dtype)
        network.recompute_layers(self.settings.gradient_checkpointing)
        objective = Objective(network)
        self.placement.spread(objective, network)
        return objective

    @property
    def judged(self) -> Objective:
        """The one with the weights that are evaluated and decoded with."""
        return self.objective if self.averaged is None else self.averaged

    @property
    def model(self) -> Transformer:
        """The judged model, its weights whole; on a mesh a copy, made once for each step."""
        if self.whole is None:
            self.whole = self.placement.model(self.judged.network)
        return self.whole

    @functools.cached_property
    def optimizer(self) -> torch.optim.AdamW:
        """AdamW (Loshchilov and Hutter 2019) that decays matrices only.

        Made when it is first needed: translating needs none, and torch imports for seconds.
        """
        matrices = [p for p in self.trained.values() if p.ndim > 1]
        vectors = [p for p in self.trained.values() if p.ndim == 1]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        betas = (self.settings.adam_beta1, self.settings.adam_beta2)
        eps = self.settings.adam_eps
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)

    def arrays(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        def give(array: np.ndarray) -> Tensor:
            floats = getattr(torch, self.settings.weight_dtype)
            kind = floats if array.dtype.kind == "f" else torch.int64
            return torch.from_numpy(array).to(self.device, kind)

        return give(batch.source), give(batch.target_in), give(batch.target_out)

    def train_step(self, batches: Sequence[Batch], step: int, learning_rate: float) -> StepResult:
        tokens = sum(part.tokens for part in batches)
        loss_sum, gradients = self.gradients(batches, step, tokens)
        norm = self.placement.norm(gradients)
        clip(gradients, norm, self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        if self.averaged is not None:
            averages = self.placement.parts(self.averaged.network)
            move_towards(averages, self.trained, 1 - ema_decay(step, self.settings))
        self.whole = None
        return StepResult(loss_sum, tokens, norm)

    def gradients(
        self, batches: Sequence[Batch], step: int, tokens: int
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss summed over a step's batches, and the gradients of its mean over ``tokens``."""
        keys = batch_keys(self.settings.seed, step, len(batches))
        self.objective.zero_grad()
        losses = []
        for number, (batch, key) in enumerate(zip(batches, keys, strict=True), 1):
            self.placement.last_of_step(self.objective, number == len(batches))
            losses.append(self.add_gradients(batch, key, tokens))
        loss_sum = self.placement.sum(sum(losses[1:], losses[0]))
        return loss_sum, self.placement.gradients(self.stored, self.trained)

    def add_gradients(self, batch: Batch, key: int, tokens: int) -> Tensor:
        """Add the gradients of the mean over a step's ``tokens``; the batch's summed loss.

        On a mesh the loss is that of this process's rows, and so are gradients that are not yet
        summed.
        """
        own, first_row = self.placement.share(batch)
        dropout = SOURCES[self.settings.dropout_rng](key, first_row)
        smoothing, learns = self.settings.label_smoothing, self.settings.padding_gradient
        with self.placement.reaching():
            with products_in(self.settings.dtype, self.device.type):
                loss_sum = self.objective(*self.arrays(own), smoothing, dropout, learns)
            (loss_sum / tokens).backward()
        return loss_sum.detach()

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[float, int]:
        own, _ = self.placement.share(batch)
        with self.placement.reaching():
            loss_sum = self.judged(*self.arrays(own), 0.0)
        self.placement.finish(self.judged)
        return float(self.placement.sum(loss_sum)), batch.tokens

    @torch.no_grad()
    def encode(self, source: np.ndarray) -> np.ndarray:
        model = self.model

        def compute(rows: np.ndarray) -> np.ndarray:
            return model.encode(model.as_source(rows)).cpu().numpy()

        return np.concatenate(self.placement.each_row(compute, source))

    @property
    def workers(self) -> Workers:
        return workers_of(self.model) if self.world.is_one_device else ONE_WORKER

    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        model = self.model
        parts = self.placement.each_row(lambda rows: decode(model, rows, search), source)
        return [row for part in parts for row in part]

    def parts(self) -> Checkpoint:
        """Weights, moments, step count and raw weights, each made when it is asked for."""
        raw = {} if self.averaged is None else self.trained
        states = {name: self.optimizer.state.get(p, {}) for name, p in self.trained.items()}
        states = {name: state for name, state in states.items() if state}
        count = next((int(state["step"]) for state in states.values()), 0)
        first, second = (
            self.readable({name: state[key] for name, state in states.items()})
            for key in ("exp_avg", "exp_avg_sq")
        )
        weights = self.placement.parts(self.judged.network)
        return Checkpoint(self.readable(weights), first, second, count, self.readable(raw))

    def readable(self, parts: Tensors) -> Parts:
        """Arrays of which this process holds parts, by the names of the weights they belong to."""
        stored = self.stored
        headers = {
            name: Header(tuple(stored[name].shape), numpy_dtype(part.dtype))
            for name, part in parts.items()
        }
        return Parts(headers, lambda name: self.placement.whole(parts[name], stored[name]))

    def state(self) -> Checkpoint:
        """Weights, moments, step count and raw weights under canonical names."""
        parts = self.parts()
        arrays = (parts.weights, parts.first_moments, parts.second_moments, parts.raw)
        weights, first, second, raw = map(dict, arrays)
        return Checkpoint(weights, first, second, parts.count, raw)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over weights, moments and step count; what does not fit is a UserError."""
        check_checkpoint(checkpoint, self.config, np.dtype(self.settings.weight_dtype))
        weights, raw = checkpoint.weights, checkpoint.raw
        if self.averaged is not None:
            self.placement.fill(self.averaged.network, weights.__getitem__)
        network = self.objective.network
        self.placement.fill(network, lambda name: (raw if name in raw else weights)[name])
        self.stored, held = tensors(network), self.placement.parts(network)
        self.trained = {name: held[name] for name in trained_names(self.config)}
        self.whole: Transformer | None = None
        self.__dict__.pop("optimizer", None)  # with its moments; made anew when it is needed
        if checkpoint.count:
            self.restore_moments(checkpoint)

    def restore_moments(self, checkpoint: Checkpoint) -> None:
        stored = self.stored
        for name, part in self.trained.items():
            first, second = checkpoint.first_moments[name], checkpoint.second_moments[name]
            self.optimizer.state[part] = {
                "step": torch.tensor(float(checkpoint.count), device=self.device),
                "exp_avg": self.placement.own(first, stored[name]),
                "exp_avg_sq": self.placement.own(second, stored[name]),
            }


@torch.no_grad()
def move_towards(averages: Tensors, trained: Tensors, weight: float) -> None:
    """Move the averages towards the trained weights."""
    held, new = [averages[name] for name in trained], list(trained.values())
    torch._foreach_lerp_(held, new, weight)  # pyright: ignore[reportPrivateImportUsage]


def clip(gradients: list[Tensor], norm: Tensor, most: float) -> None:
    """Scale all gradients so that their global norm is at most ``most``; 0 leaves them alone."""
    if most > 0:
        scale = most / norm.clamp(min=most)
        torch._foreach_mul_(gradients, scale)  # pyright: ignore[reportPrivateImportUsage]


def make_backend(
    config: TransformerConfig,
    settings: TrainingSettings,
    state: Checkpoint,
    world: World = ALONE,
) -> TorchBackend:
    """The backend that goes on from a state; one that does not fit is a UserError."""
    return TorchBackend(config, settings, state, world)
