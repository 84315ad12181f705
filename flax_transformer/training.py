"""The training backend in JAX, the twin of torch_transformer/training.py."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from convert.averaging import write_average
from convert.checkpoints import (
    Checkpoint,
    check_checkpoint,
    load_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
)
from flax_transformer.adamw import adamw, adamw_numbers
from flax_transformer.cpu.programs import compiled
from flax_transformer.decoding import decode
from flax_transformer.dropout import SOURCES, Dropout
from flax_transformer.loss import smoothed_cross_entropy
from flax_transformer.model import Transformer
from flax_transformer.precision import products_in
from flax_transformer.weights import fill, load_weights, skeleton, variables
from training_recipe.backend import Hypothesis, Search, StepResult
from training_recipe.batches import Batch
from training_recipe.first_weights import first_weights
from training_recipe.freed_memory import keep_freed_memory
from training_recipe.schedule import ema_decay
from training_recipe.settings import TrainingSettings
from transformer_spec import (
    TransformerConfig,
    UserError,
    flax_name,
    to_flax,
    to_torch,
    trained_names,
    weight_shapes,
)
from transformer_spec.dropout_keys import batch_keys

Arrays = dict[str, Array]
State = tuple[Arrays, Arrays, Arrays]


def find_device(name: str) -> "jax.Device":  # pyright: ignore[reportInvalidTypeForm]
    """The device of a setting: auto, cpu, gpu or tpu; one that is absent is a UserError."""
    try:
        return jax.devices(None if name == "auto" else name)[0]
    except RuntimeError:
        present = sorted({device.platform for device in jax.devices()})
        message = f"--device {name}: JAX sees only {', '.join(present)} on this machine"
        raise UserError(message) from None


def objective(
    model: Transformer,
    source: Int[Array, "B S"],
    target_in: Int[Array, "B T"],
    target_out: Int[Array, "B T"],
    smoothing: float,
    dropout: Dropout | None = None,
) -> Float[Array, ""]:
    """The loss summed over the real tokens of a batch."""
    memory = model.encoder_states(source, dropout)
    states = model.decoder_states(target_in, memory, source, dropout)
    states = states.reshape(-1, states.shape[-1])
    table, bias = model.output_table, model.decoder.finalFc.bias
    bias = None if bias is None else bias[...]
    pad_id = model.config.pad_id
    return smoothed_cross_entropy(states, table, bias, target_out.ravel(), pad_id, smoothing)


class JaxBackend:
    """Fills training_recipe.backend.Backend.

    ``trained`` are the weights that are trained; ``averaged`` the averaged ones, where there are
    any; ``judged`` those that ``model`` has.
    """

    name = "jax"

    def __init__(
        self,
        config: TransformerConfig,
        settings: TrainingSettings,
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.config, self.settings = config, settings
        if settings.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        if settings.device in ("auto", "cpu"):
            keep_freed_memory()
        self.device = find_device(settings.device)
        jax.config.update("jax_default_device", self.device)
        model = Transformer(config, settings.seed, settings.weight_dtype)
        if weights is None and settings.init_gain != 1:
            weights = first_weights(config, settings)
        if weights is not None:
            load_weights(model, dict(to_flax(*item) for item in weights.items()))
        self.skeleton = skeleton(model)
        names = [flax_name(name) for name in trained_names(config)]
        self.frozen = {name: v[...] for name, v in variables(model).items() if name not in names}
        self.trained = {name: v[...] for name, v in variables(model).items() if name in names}
        # The trained weights' memory is given away in each step, so the averages have their own.
        self.averaged = jax.tree.map(jnp.copy, self.trained) if settings.ema_decay else None
        self.first_moments: Arrays = {}
        self.second_moments: Arrays = {}
        self.count = 0
        self.compiled_gradients = compiled(self.pure_gradients, self.device)
        self.compiled_sum = jax.jit(add, donate_argnums=0)
        self.compiled_update = jax.jit(self.pure_update, donate_argnums=0)
        self.compiled_average = jax.jit(move_towards, donate_argnums=0)
        self.compiled_loss = jax.jit(self.pure_loss, static_argnames="smoothing")
        self.compiled_memory = jax.jit(self.pure_memory)

    @property
    def model(self) -> Transformer:
        return fill(self.skeleton, self.judged | self.frozen)

    @property
    def judged(self) -> Arrays:
        return self.trained if self.averaged is None else self.averaged

    def arrays(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return batch.source, batch.target_in, batch.target_out

    def train_step(self, batch: Batch, step: int, learning_rate: float, *more: Batch) -> StepResult:
        batches = batch, *more
        tokens = sum(part.tokens for part in batches)
        keys = batch_keys(self.settings.seed, step, len(batches))
        if not self.first_moments:
            self.first_moments = jax.tree.map(jnp.zeros_like, self.trained)
            self.second_moments = jax.tree.map(jnp.zeros_like, self.trained)
        self.count += 1
        parts = (self.gradients(*part, tokens) for part in zip(batches, keys, strict=True))
        gradients, loss_sum = functools.reduce(self.compiled_sum, parts)
        numbers = adamw_numbers(self.count, learning_rate, self.settings)
        state = self.trained, self.first_moments, self.second_moments
        state, norm = self.compiled_update(state, gradients, numbers)
        self.trained, self.first_moments, self.second_moments = state
        if self.averaged is not None:
            weight = 1 - ema_decay(step, self.settings)
            self.averaged = self.compiled_average(self.averaged, self.trained, weight)
        return StepResult(loss_sum, tokens, norm)

    def gradients(self, batch: Batch, key: int, tokens: int) -> tuple[Arrays, Array]:
        """The gradients of the mean over a step's ``tokens``, and the batch's summed loss."""
        arrays = self.arrays(batch)
        return self.compiled_gradients(self.trained, self.frozen, arrays, np.uint32(key), tokens)

    def pure_gradients(
        self,
        trained: Arrays,
        frozen: Arrays,
        arrays: tuple[Array, Array, Array],
        key: Array,
        tokens: Array,
    ) -> tuple[Arrays, Array]:
        """The gradients of the mean loss, and the summed loss; compiled for each shape."""

        def mean_loss(trained: Arrays) -> tuple[Array, Array]:
            smoothing = self.settings.label_smoothing
            dropout = SOURCES[self.settings.dropout_rng](key)
            with products_in(self.settings.dtype):
                loss_sum = self.pure_loss(trained, frozen, arrays, smoothing, dropout)
            return loss_sum / tokens, loss_sum

        return jax.grad(mean_loss, has_aux=True)(trained)

    def pure_update(
        self, state: State, gradients: Arrays, numbers: tuple[Array, Array, Array]
    ) -> tuple[State, Array]:
        """One optimizer step and the gradients' norm; compiled once, apart from the shapes."""
        trained, first, second = state
        gradients, norm = clip(gradients, self.settings.clip_norm)
        update = functools.partial(adamw, numbers=numbers, settings=self.settings)
        new = {n: update(trained[n], gradients[n], first[n], second[n]) for n in trained}
        trained, first, second = (
            {name: triple[i] for name, triple in new.items()} for i in range(3)
        )
        return (trained, first, second), norm

    def pure_loss(
        self,
        trained: Arrays,
        frozen: Arrays,
        arrays: tuple[Array, Array, Array],
        smoothing: float,
        dropout: Dropout | None = None,
    ) -> Array:
        model = fill(self.skeleton, trained | frozen)
        return objective(model, *arrays, smoothing=smoothing, dropout=dropout)

    def pure_memory(self, trained: Arrays, frozen: Arrays, source: Array) -> Array:
        return fill(self.skeleton, trained | frozen).encode(source)

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        arrays = self.arrays(batch)
        loss_sum = self.compiled_loss(self.judged, self.frozen, arrays, smoothing=0.0)
        return float(loss_sum), batch.tokens

    def encode(self, source: np.ndarray) -> np.ndarray:
        return np.asarray(self.compiled_memory(self.judged, self.frozen, source))

    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        return decode(self.model, source, search)

    def save(self, folder: Path) -> None:
        write_flax_checkpoint(folder, self.checkpoint())

    def checkpoint(self) -> Checkpoint:
        """Weights, moments, step count and raw weights under canonical names."""
        order = list(weight_shapes(self.config))
        weights = _canonical(self.judged | self.frozen, order)
        raw = {} if self.averaged is None else _canonical(self.trained, order)
        moments = self.first_moments, self.second_moments
        first, second = (_canonical(part, order) for part in moments)
        return Checkpoint(weights, first, second, self.count, raw)

    def restore(self, folder: Path) -> None:
        self.load(read_checkpoint(folder), str(folder))

    def load(self, checkpoint: Checkpoint, label: str = "the checkpoint") -> None:
        """Take over weights, moments and step count; what does not fit is a UserError."""
        check_checkpoint(checkpoint, self.config, np.dtype(self.settings.weight_dtype), label)
        held = _on_device(checkpoint.weights)
        self.frozen = {name: held[name] for name in self.frozen}
        if self.averaged is not None:
            self.averaged = {name: held[name] for name in self.averaged}
            held = _on_device(checkpoint.weights)
        held |= _on_device(checkpoint.raw)
        self.trained = {name: held[name] for name in self.trained}
        self.count = checkpoint.count
        moments = (checkpoint.first_moments, checkpoint.second_moments) if self.count else ({}, {})
        self.first_moments, self.second_moments = map(_on_device, moments)

    def use(self, folder: Path) -> None:
        self.load(Checkpoint(load_weights_of(folder, self.config)[1]), str(folder))

    def average(self, folders: list[Path], destination: Path) -> None:
        write_average(folders, self.config, destination)


def add(sums: tuple[Arrays, Array], part: tuple[Arrays, Array]) -> tuple[Arrays, Array]:
    """The gradients and losses of several batches, summed; compiled once."""
    return jax.tree.map(jnp.add, sums, part)


def move_towards(averaged: Arrays, trained: Arrays, weight: Array) -> Arrays:
    """The averages after one step; compiled once."""
    return jax.tree.map(lambda average, new: average + weight * (new - average), averaged, trained)


def clip(gradients: Arrays, most: float) -> tuple[Arrays, Array]:
    """Scale all gradients so that their global norm is at most ``most``; 0 leaves them alone."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients.values()))
    if most > 0:
        scale = most / jnp.maximum(norm, most)
        gradients = {name: g * scale for name, g in gradients.items()}
    return gradients, norm


def _canonical(arrays: Arrays, order: list[str]) -> dict[str, np.ndarray]:
    found = dict(to_torch(name, np.array(array)) for name, array in arrays.items())
    return {name: found[name] for name in order if name in found}


def _on_device(canonical: dict[str, np.ndarray]) -> Arrays:
    flax = dict(to_flax(*item) for item in canonical.items())
    return {name: jnp.array(array) for name, array in flax.items()}


def make_backend(
    config: TransformerConfig,
    settings: TrainingSettings,
    weights: dict[str, np.ndarray] | None = None,
) -> JaxBackend:
    """The backend; without ``weights`` it starts from ``first_weights(config, settings)``."""
    return JaxBackend(config, settings, weights)
