"""The training backend in JAX, the twin of torch_transformer/step.py."""

import contextlib
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
from flax_transformer.decoding import decode
from flax_transformer.device import numbers_of, workers_of
from flax_transformer.dropout import SOURCES, Dropout
from flax_transformer.loss import smoothed_cross_entropy
from flax_transformer.mesh_decoding import decode_on
from flax_transformer.model import Transformer
from flax_transformer.placement import OneDevice, OnMesh, place_of
from flax_transformer.precision import products_in
from flax_transformer.processes import Awaited, reaching_all
from flax_transformer.weights import fill, variables
from training_recipe.arrays import Header, Parts
from training_recipe.backend import Checkpoint, StepResult
from training_recipe.batching.batches import Batch
from training_recipe.distributed.checks import check_mesh
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import ALONE, World
from training_recipe.options.schedule import ema_decay
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Hypothesis, Search
from training_recipe.searching.workers import ONE_WORKER, Workers
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
    states = model.scaled(states).reshape(-1, states.shape[-1])
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

    def __init__(
        self, config: TransformerConfig, settings: ProgramSettings, place: OneDevice
    ) -> None:
        self.settings, self.place = settings, place
        with numbers_of(settings.dtype):
            model, trained = (Transformer.skeleton(config, settings.weight_dtype) for _ in "12")
        trained.recompute_layers(settings.gradient_checkpointing)
        self.place.mark(trained)
        self.skeleton, self.marked = nnx.split(model), nnx.split(trained)
        betas = settings.adam_beta1, settings.adam_beta2
        self.optimizer = adamw(settings.clip_norm, settings.weight_decay, *betas, settings.adam_eps)
        self.gradients = self.place.gradients(self.pure_gradients)
        self.update = jax.jit(
            self.pure_update, donate_argnums=(0, 1), out_shardings=self.place_of_update(config)
        )
        self.loss = self.place.loss(self.pure_loss)
        self.memory = jax.jit(self.pure_memory)

    def place_of_update(self, config: TransformerConfig) -> Any:
        """How trained weights, the optimizer's state and the norm lie after an update."""
        trained = {flax_name(name) for name in trained_names(config)}
        with numbers_of(self.settings.dtype):
            shapes = {
                name: variable.get_value()
                for name, variable in variables(nnx.merge(*self.skeleton)).items()
                if name in trained
            }
            state, norm = jax.eval_shape(self.optimizer.init, shapes), jax.ShapeDtypeStruct((), int)
            return self.place.placed((shapes, state, norm))

    def pure_gradients(
        self,
        trained: Arrays,
        frozen: Arrays,
        arrays: tuple[Array, Array, Array],
        key: Array,
        tokens: Array,
        first_row: Array | int = 0,
    ) -> tuple[Arrays, Array]:
        """The gradients of the mean loss, and the summed loss; compiled for each shape.

        Where ``arrays`` are rows of a batch, from ``first_row`` on, the mean is that over all of
        its ``tokens``.
        """

        def mean_loss(trained: Arrays) -> tuple[Array, Array]:
            smoothing = self.settings.label_smoothing
            dropout = SOURCES[self.settings.dropout_rng](key, first_row)
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
        smoothing: float = 0.0,
        dropout: Dropout | None = None,
    ) -> Array:
        model = fill(self.marked, trained | frozen)
        learns = self.settings.padding_gradient
        return objective(model, *arrays, smoothing, dropout, learns)

    def pure_memory(self, weights: Arrays, source: Array) -> Array:
        return fill(self.skeleton, weights).encode(source)


# Those made last are kept: a run that goes on in the same process compiles nothing again.
@functools.lru_cache(maxsize=1)
def programs(config: TransformerConfig, settings: ProgramSettings, mesh: Mesh) -> Programs:
    """The programs for the devices of this process and, on a mesh, of all others."""
    return Programs(config, settings, place_of(mesh, settings.device))


def in_its_numbers(
    method: Callable[Concatenate["JaxBackend", P], R],
) -> Callable[Concatenate["JaxBackend", P], R]:
    """A method of the backend, in which JAX has the numbers that the settings ask for."""

    @functools.wraps(method)
    def run(self: "JaxBackend", *args: P.args, **kwargs: P.kwargs) -> R:
        with numbers_of(self.settings.dtype), self.reaching():
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
        world: World = ALONE,
    ) -> None:
        check_mesh(settings, world.mesh)
        self.config, self.settings, self.world = config, settings, world
        self.programs = programs(config, ProgramSettings.of(settings), world.mesh)
        self.place = self.programs.place
        self.restore(state)

    def reaching(self) -> contextlib.AbstractContextManager[None]:
        """A block in which this process may wait for others."""
        alone = self.world.processes.count == 1
        return contextlib.nullcontext() if alone else reaching_all()

    @property
    def model(self) -> Transformer:
        return fill(self.programs.skeleton, self.whole)

    @property
    def whole(self) -> Arrays:
        """The weights to evaluate and decode with, whole on every device."""
        if self._whole is None:
            self._whole = self.place.gathered(self.judged | self.frozen)
        return self._whole

    @property
    def judged(self) -> Arrays:
        return self.trained if self.averaged is None else self.averaged

    def arrays(self, batch: Batch) -> tuple[Any, ...]:
        return tuple(self.place.batch(array, batch.pad_id) for array in batch.arrays)

    @in_its_numbers
    def train_step(self, batches: Sequence[Batch], step: int, learning_rate: float) -> StepResult:
        tokens = sum(part.tokens for part in batches)
        keys = batch_keys(self.settings.seed, step, len(batches))
        self._whole = None
        if self.optimizer_state is None:
            self.optimizer_state = self.place.state(self.programs.optimizer.init, self.trained)
        parts = (self.gradients(*part, tokens) for part in zip(batches, keys, strict=True))
        gradients, loss_sum = functools.reduce(summed, parts)
        self.trained, self.optimizer_state, norm = self.programs.update(
            self.trained, self.optimizer_state, gradients, learning_rate
        )
        if self.averaged is not None:
            weight = 1 - ema_decay(step, self.settings)
            self.averaged = moved(self.averaged, self.trained, weight)
        if self.world.processes.count > 1:
            return StepResult(Awaited(loss_sum), tokens, Awaited(norm))
        return StepResult(loss_sum, tokens, norm)

    def gradients(self, batch: Batch, key: int, tokens: int) -> tuple[Arrays, Array]:
        """The gradients of the mean over a step's ``tokens``, and the batch's summed loss."""
        arrays = self.arrays(batch)
        return self.programs.gradients(self.trained, self.frozen, arrays, np.uint32(key), tokens)

    @in_its_numbers
    def evaluate(self, batch: Batch) -> tuple[float, int]:
        arrays = self.arrays(batch)
        loss_sum = self.programs.loss(self.judged, self.frozen, arrays)
        return float(loss_sum), batch.tokens

    @in_its_numbers
    def encode(self, source: np.ndarray) -> np.ndarray:
        return np.asarray(self.programs.memory(self.whole, source))

    @property
    def workers(self) -> Workers:
        return workers_of(self.model) if self.world.is_one_device else ONE_WORKER

    @in_its_numbers
    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        if not isinstance(self.place, OnMesh):
            return decode(self.model, source, search)
        return decode_on(self.place, self.world.processes, self.model, source, search)

    def state(self) -> Checkpoint:
        """Weights, moments, step count and raw weights under canonical names."""
        return self.parts().read()

    def parts(self) -> Checkpoint:
        """The same, each array read from the devices when it is asked for."""
        weights = self._parts(self.judged | self.frozen)
        raw = {} if self.averaged is None else self._parts(self.trained)
        if self.optimizer_state is None:
            return Checkpoint(weights, raw=raw)
        adam = adam_state(self.optimizer_state)
        first, second = self._parts(adam.mu), self._parts(adam.nu)
        return Checkpoint(weights, first, second, int(adam.count), raw)

    def _parts(self, arrays: Arrays) -> Parts:
        """Arrays under canonical names, in the order of the inventory."""
        shapes = weight_shapes(self.config)
        held = {name: arrays[flax_name(name)] for name in shapes if flax_name(name) in arrays}
        headers = {name: Header(shapes[name], array.dtype) for name, array in held.items()}
        return Parts(
            headers, lambda name: to_torch(flax_name(name), self.place.read(held[name]))[1]
        )

    @in_its_numbers
    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over weights, moments and step count; what does not fit is a UserError."""
        check_checkpoint(checkpoint, self.config, np.dtype(self.settings.weight_dtype))
        self._whole: Arrays | None = None
        names = {flax_name(name) for name in trained_names(self.config)}
        held = self.in_flax(checkpoint.weights, checkpoint.raw)
        self.frozen = {name: array for name, array in held.items() if name not in names}
        self.trained = {name: array for name, array in held.items() if name in names}
        self.averaged: Arrays | None = None
        if self.settings.ema_decay:
            # The trained weights' memory is given away in each step: the averages have their own.
            held = self.in_flax(checkpoint.weights)
            self.averaged = {name: held[name] for name in self.trained}
        self.optimizer_state = self.optimizer_state_of(checkpoint) if checkpoint.count else None

    def optimizer_state_of(self, checkpoint: Checkpoint) -> Any:
        count = self.place.put(np.array(checkpoint.count, np.int32))
        mu, nu = map(self.in_flax, (checkpoint.first_moments, checkpoint.second_moments))
        state = jax.eval_shape(self.programs.optimizer.init, self.trained)
        return optax.tree.set(state, count=count, mu=mu, nu=nu)

    def in_flax(
        self, weights: Mapping[str, np.ndarray], instead: Mapping[str, np.ndarray] | None = None
    ) -> Arrays:
        """Arrays in their places, under Flax names; those of ``instead`` go before ``weights``."""
        found = Arrays()
        for name in weights:
            source = instead if instead and name in instead else weights
            flax, array = to_flax(name, source[name])
            found[flax] = self.place.put(array)
        return found


@functools.partial(jax.jit, donate_argnums=0)
def summed(sums: tuple[Arrays, Array], part: tuple[Arrays, Array]) -> tuple[Arrays, Array]:
    """The gradients and losses of several batches, summed; compiled once."""
    return jax.tree.map(jnp.add, sums, part)


@functools.partial(jax.jit, donate_argnums=0)
def moved(averaged: Arrays, trained: Arrays, weight: Array) -> Arrays:
    """The averages after one step; compiled once."""
    return jax.tree.map(lambda average, new: average + weight * (new - average), averaged, trained)


def make_backend(
    config: TransformerConfig,
    settings: TrainingSettings,
    state: Checkpoint,
    world: World = ALONE,
) -> JaxBackend:
    """The backend that goes on from a state; one that does not fit is a UserError."""
    return JaxBackend(config, settings, state, world)
