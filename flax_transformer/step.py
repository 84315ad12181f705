"""The training backend in JAX, the twin of torch_transformer/step.py."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from convert.checkpoints import (
    check_checkpoint,
)
from flax_transformer.adamw import adam_state, adamw
from flax_transformer.cpu.programs import compiled
from flax_transformer.decoding import decode
from flax_transformer.device import numbers_of
from flax_transformer.dropout import SOURCES, Dropout
from flax_transformer.loss import smoothed_cross_entropy
from flax_transformer.model import Transformer
from flax_transformer.precision import products_in
from flax_transformer.process import find_device
from flax_transformer.weights import fill
from training_recipe.backend import Checkpoint, StepResult
from training_recipe.batching.batches import Batch
from training_recipe.options.schedule import ema_decay
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Hypothesis, Search
from transformer_spec import (
    TransformerConfig,
    flax_name,
    to_flax,
    to_torch,
    trained_names,
    weight_shapes,
)
from transformer_spec.dropout_keys import batch_keys

Arrays = dict[str, Array]
P = ParamSpec("P")
R = TypeVar("R")


def objective(
    model: Transformer,
    source: Int[Array, "B S"],
    target_in: Int[Array, "B T"],
    target_out: Int[Array, "B T"],
    smoothing: float,
    dropout: Dropout | None = None,
    padding_gradient: bool = True,
) -> Float[Array, ""]:
    """The loss summed over the real tokens of a batch."""
    memory = model.encoder_states(source, dropout)
    states = model.decoder_states(target_in, memory, source, dropout, padding_gradient)
    states = states.reshape(-1, states.shape[-1])
    table, bias = model.output_table, model.decoder.finalFc.bias
    bias = None if bias is None else bias[...]
    pad_id = model.config.pad_id
    return smoothed_cross_entropy(states, table, bias, target_out.ravel(), pad_id, smoothing)


class ProgramSettings(NamedTuple):
    """The settings that the programs read, and no others."""

    dtype: str
    weight_dtype: str
    device: str
    label_smoothing: float
    padding_gradient: bool
    dropout_rng: str
    gradient_checkpointing: bool
    clip_norm: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_eps: float

    @classmethod
    def of(cls, settings: TrainingSettings) -> "ProgramSettings":
        return cls(*(getattr(settings, name) for name in cls._fields))


class Programs:
    """What a backend computes: pure functions of its arrays, compiled for each of their shapes.

    ``skeleton`` is the model without numbers, ``optimizer`` optax's.
    """

    def __init__(self, config: TransformerConfig, settings: ProgramSettings) -> None:
        self.settings, device = settings, find_device(settings.device)
        with numbers_of(settings.dtype):
            model = Transformer.skeleton(config, settings.weight_dtype)
            model.recompute_layers(settings.gradient_checkpointing)
            self.skeleton = nnx.split(model)
        betas = settings.adam_beta1, settings.adam_beta2
        self.optimizer = adamw(settings.clip_norm, settings.weight_decay, *betas, settings.adam_eps)
        self.gradients = compiled(self.pure_gradients, device)
        self.update = jax.jit(self.pure_update, donate_argnums=(0, 1))
        self.loss = jax.jit(self.pure_loss, static_argnames="smoothing")
        self.memory = jax.jit(self.pure_memory)

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
        self, trained: Arrays, state: Any, gradients: Arrays, learning_rate: Array
    ) -> tuple[Any, Any, Array]:
        """One optimizer step and the gradients' norm; compiled once, apart from the shapes."""
        norm = optax.tree.norm(gradients)
        given = {"learning_rate": learning_rate}
        updates, state = self.optimizer.update(gradients, state, trained, **given)
        return optax.apply_updates(trained, updates), state, norm

    def pure_loss(
        self,
        trained: Arrays,
        frozen: Arrays,
        arrays: tuple[Array, Array, Array],
        smoothing: float,
        dropout: Dropout | None = None,
    ) -> Array:
        model = fill(self.skeleton, trained | frozen)
        learns = self.settings.padding_gradient
        return objective(model, *arrays, smoothing, dropout, learns)

    def pure_memory(self, trained: Arrays, frozen: Arrays, source: Array) -> Array:
        return fill(self.skeleton, trained | frozen).encode(source)


# Those made last are kept: a run that goes on in the same process compiles nothing again.
programs = functools.lru_cache(maxsize=1)(Programs)


def in_its_numbers(
    method: Callable[Concatenate["JaxBackend", P], R],
) -> Callable[Concatenate["JaxBackend", P], R]:
    """A method of the backend, in which JAX has the numbers that the settings ask for."""

    @functools.wraps(method)
    def run(self: "JaxBackend", *args: P.args, **kwargs: P.kwargs) -> R:
        with numbers_of(self.settings.dtype):
            return method(self, *args, **kwargs)

    return run


class JaxBackend:
    """Fills training_recipe.backend.Backend.

    ``trained`` are the weights that are trained; ``averaged`` the averaged ones, where there are
    any; ``judged`` those that ``model`` has. ``optimizer_state`` is optax's, None before the first
    step: translating needs none.
    """

    name = "jax"

    def __init__(
        self,
        config: TransformerConfig,
        settings: TrainingSettings,
        state: Checkpoint,
    ) -> None:
        self.config, self.settings = config, settings
        self.device = find_device(settings.device)
        self.programs = programs(config, ProgramSettings.of(settings))
        self.restore(state)

    @property
    def model(self) -> Transformer:
        return fill(self.programs.skeleton, self.judged | self.frozen)

    @property
    def judged(self) -> Arrays:
        return self.trained if self.averaged is None else self.averaged

    def arrays(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return batch.source, batch.target_in, batch.target_out

    @in_its_numbers
    def train_step(self, batches: Sequence[Batch], step: int, learning_rate: float) -> StepResult:
        tokens = sum(part.tokens for part in batches)
        keys = batch_keys(self.settings.seed, step, len(batches))
        if self.optimizer_state is None:
            state = self.programs.optimizer.init(self.trained)
            self.optimizer_state = jax.device_put(state, self.device)
        parts = (self.gradients(*part, tokens) for part in zip(batches, keys, strict=True))
        gradients, loss_sum = functools.reduce(summed, parts)
        self.trained, self.optimizer_state, norm = self.programs.update(
            self.trained, self.optimizer_state, gradients, learning_rate
        )
        if self.averaged is not None:
            weight = 1 - ema_decay(step, self.settings)
            self.averaged = moved(self.averaged, self.trained, weight)
        return StepResult(loss_sum, tokens, norm)

    def gradients(self, batch: Batch, key: int, tokens: int) -> tuple[Arrays, Array]:
        """The gradients of the mean over a step's ``tokens``, and the batch's summed loss."""
        arrays = self.arrays(batch)
        return self.programs.gradients(self.trained, self.frozen, arrays, np.uint32(key), tokens)

    @in_its_numbers
    def evaluate(self, batch: Batch) -> tuple[float, int]:
        arrays = self.arrays(batch)
        loss_sum = self.programs.loss(self.judged, self.frozen, arrays, smoothing=0.0)
        return float(loss_sum), batch.tokens

    @in_its_numbers
    def encode(self, source: np.ndarray) -> np.ndarray:
        return np.asarray(self.programs.memory(self.judged, self.frozen, source))

    @in_its_numbers
    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        return decode(self.model, source, search)

    def parts(self) -> Checkpoint:
        """The same as ``state``."""
        return self.state()

    def state(self) -> Checkpoint:
        """Weights, moments, step count and raw weights under canonical names."""
        order = list(weight_shapes(self.config))
        weights = _canonical(self.judged | self.frozen, order)
        raw = {} if self.averaged is None else _canonical(self.trained, order)
        if self.optimizer_state is None:
            return Checkpoint(weights, raw=raw)
        adam = adam_state(self.optimizer_state)
        first, second = (_canonical(part, order) for part in (adam.mu, adam.nu))
        return Checkpoint(weights, first, second, int(adam.count), raw)

    @in_its_numbers
    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over weights, moments and step count; what does not fit is a UserError."""
        check_checkpoint(checkpoint, self.config, np.dtype(self.settings.weight_dtype))
        names = {flax_name(name) for name in trained_names(self.config)}
        held = self.in_flax({**checkpoint.weights, **checkpoint.raw})
        self.frozen = {name: array for name, array in held.items() if name not in names}
        self.trained = {name: array for name, array in held.items() if name in names}
        self.averaged: Arrays | None = None
        if self.settings.ema_decay:
            # The trained weights' memory is given away in each step: the averages have their own.
            held = self.in_flax(checkpoint.weights)
            self.averaged = {name: held[name] for name in self.trained}
        self.optimizer_state = self.optimizer_state_of(checkpoint) if checkpoint.count else None

    def optimizer_state_of(self, checkpoint: Checkpoint) -> Any:
        count = self.on_device(np.int32(checkpoint.count))
        mu, nu = map(self.in_flax, (checkpoint.first_moments, checkpoint.second_moments))
        state = jax.eval_shape(self.programs.optimizer.init, self.trained)
        return optax.tree.set(state, count=count, mu=mu, nu=nu)

    def in_flax(self, weights: Mapping[str, np.ndarray]) -> Arrays:
        return self.on_device(dict(to_flax(*item) for item in weights.items()))

    def on_device(self, arrays: Any) -> Any:
        """A tree of arrays on the device, in memory of its own."""
        return jax.device_put(arrays, self.device, may_alias=False)


@functools.partial(jax.jit, donate_argnums=0)
def summed(sums: tuple[Arrays, Array], part: tuple[Arrays, Array]) -> tuple[Arrays, Array]:
    """The gradients and losses of several batches, summed; compiled once."""
    return jax.tree.map(jnp.add, sums, part)


@functools.partial(jax.jit, donate_argnums=0)
def moved(averaged: Arrays, trained: Arrays, weight: Array) -> Arrays:
    """The averages after one step; compiled once."""
    return jax.tree.map(lambda average, new: average + weight * (new - average), averaged, trained)


def _canonical(arrays: Arrays, order: list[str]) -> dict[str, np.ndarray]:
    found = dict(to_torch(name, np.array(array)) for name, array in arrays.items())
    return {name: found[name] for name in order if name in found}


def make_backend(
    config: TransformerConfig,
    settings: TrainingSettings,
    state: Checkpoint,
) -> JaxBackend:
    """The backend that goes on from a state; one that does not fit is a UserError."""
    return JaxBackend(config, settings, state)
