"""The training backend in PyTorch, the twin of flax_transformer/step.py."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from convert.checkpoints import (
    check_checkpoint,
)
from torch_transformer.decoding import decode
from torch_transformer.dropout import SOURCES, Dropout
from torch_transformer.loss import smoothed_cross_entropy
from torch_transformer.model import Transformer
from torch_transformer.precision import products_in
from torch_transformer.process import find_device
from torch_transformer.weights import load_weights, tensors, weights
from training_recipe.backend import Checkpoint, StepResult
from training_recipe.batching.batches import Batch
from training_recipe.options.schedule import ema_decay
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Hypothesis, Search
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
    states = states.flatten(0, 1)
    table, bias = model.output_table, model.decoder.finalFc.bias
    pad_id = model.config.pad_id
    return smoothed_cross_entropy(states, table, bias, target_out.flatten(), pad_id, smoothing)


class TorchBackend:
    """Fills training_recipe.backend.Backend.

    ``network`` holds the weights that are trained, those of ``trained`` and the frozen ones;
    ``averaged`` the averaged ones, where there are any.
    """

    name = "torch"

    def __init__(
        self,
        config: TransformerConfig,
        settings: TrainingSettings,
        state: Checkpoint,
    ) -> None:
        self.config, self.settings = config, settings
        self.device = find_device(settings.device)
        dtype = getattr(torch, settings.weight_dtype)
        self.network = Transformer.skeleton(config, dtype)
        self.network.recompute_layers(settings.gradient_checkpointing)
        self.averaged = Transformer.skeleton(config, dtype) if settings.ema_decay else None
        self.restore(state)

    @property
    def model(self) -> Transformer:
        return self.network if self.averaged is None else self.averaged

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
            return torch.from_numpy(array).to(self.device, torch.int64)

        return give(batch.source), give(batch.target_in), give(batch.target_out)

    def train_step(self, batches: Sequence[Batch], step: int, learning_rate: float) -> StepResult:
        tokens = sum(part.tokens for part in batches)
        keys = batch_keys(self.settings.seed, step, len(batches))
        self.optimizer.zero_grad()
        parts = [self.add_gradients(*part, tokens) for part in zip(batches, keys, strict=True)]
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        norm = clip(gradients, self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        if self.averaged is not None:
            move_towards(self.averaged, self.trained, 1 - ema_decay(step, self.settings))
        return StepResult(sum(parts[1:], parts[0]), tokens, norm)

    def add_gradients(self, batch: Batch, key: int, tokens: int) -> Tensor:
        """Add the gradients of the mean over a step's ``tokens``; the batch's summed loss."""
        dropout = SOURCES[self.settings.dropout_rng](key)
        smoothing, learns = self.settings.label_smoothing, self.settings.padding_gradient
        with products_in(self.settings.dtype, self.device.type):
            loss_sum = objective(self.network, *self.arrays(batch), smoothing, dropout, learns)
        (loss_sum / tokens).backward()
        return loss_sum.detach()

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[float, int]:
        return float(objective(self.model, *self.arrays(batch), 0.0)), batch.tokens

    @torch.no_grad()
    def encode(self, source: np.ndarray) -> np.ndarray:
        ids = torch.from_numpy(source).to(self.device, torch.int64)
        return self.model.encode(ids).cpu().numpy()

    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        return decode(self.model, source, search)

    def parts(self) -> Checkpoint:
        """The same as ``state``."""
        return self.state()

    def state(self) -> Checkpoint:
        """Weights, moments, step count and raw weights under canonical names."""
        raw = {} if self.averaged is None else weights(self.network)
        raw = {name: array for name, array in raw.items() if name in self.trained}
        states = {name: self.optimizer.state.get(p, {}) for name, p in self.trained.items()}
        count = next((int(s["step"]) for s in states.values() if s), 0)
        first, second = (_moments(states, key) for key in ("exp_avg", "exp_avg_sq"))
        return Checkpoint(weights(self.model), first, second, count, raw)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over weights, moments and step count; what does not fit is a UserError."""
        check_checkpoint(checkpoint, self.config, np.dtype(self.settings.weight_dtype))
        if self.averaged is not None:
            load_weights(self.averaged, checkpoint.weights)
        trained = {**checkpoint.weights, **checkpoint.raw} if checkpoint.raw else checkpoint.weights
        load_weights(self.network, trained)
        for model in (self.model, self.network):
            model.to(self.device)
        held = tensors(self.network)
        self.trained = {name: held[name] for name in trained_names(self.config)}
        self.__dict__.pop("optimizer", None)  # with its moments; made anew when it is needed
        for name, parameter in self.trained.items() if checkpoint.count else ():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(checkpoint.count), device=self.device),
                "exp_avg": self.moment(checkpoint.first_moments[name]),
                "exp_avg_sq": self.moment(checkpoint.second_moments[name]),
            }

    def moment(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array, order="C")).to(self.device)


@torch.no_grad()
def move_towards(averaged: Transformer, trained: Tensors, weight: float) -> None:
    """Move the averages towards the trained weights."""
    held = tensors(averaged)
    averages, new = [held[name] for name in trained], list(trained.values())
    torch._foreach_lerp_(averages, new, weight)  # pyright: ignore[reportPrivateImportUsage]


def clip(gradients: list[Tensor], most: float) -> Tensor:
    """Scale all gradients so that their global norm is at most ``most``; 0 leaves them alone.

    Returns the norm before.
    """
    norm = torch.nn.utils.get_total_norm(gradients)
    if most > 0:
        scale = most / norm.clamp(min=most)
        torch._foreach_mul_(gradients, scale)  # pyright: ignore[reportPrivateImportUsage]
    return norm


def _moments(states: dict[str, dict[str, Tensor]], key: str) -> dict[str, np.ndarray]:
    held = {name: state[key] for name, state in states.items() if state}
    return {name: tensor.cpu().numpy().copy() for name, tensor in held.items()}


def make_backend(
    config: TransformerConfig,
    settings: TrainingSettings,
    state: Checkpoint,
) -> TorchBackend:
    """The backend that goes on from a state; one that does not fit is a UserError."""
    return TorchBackend(config, settings, state)
