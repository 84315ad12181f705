"""Where the arrays of training lie: on one device, or cut over a mesh of several.

On a mesh every device has rows of its own of each batch. Matrices are cut over the axis ``fsdp``
along the longest of their own axes that it divides, everything else lies whole on every device
(Rajbhandari et al. 2020, "ZeRO", stage 3). A cut matrix is gathered where the model reads it, and
the gradient of gathering sums and cuts the gradients of all devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_transformer.cpu.programs import compiled
from flax_transformer.primitives import CUT, SPLIT
from flax_transformer.process import find_device, find_devices
from training_recipe.batching.rows import filled_up
from training_recipe.distributed.mesh import AXES
from training_recipe.distributed.mesh import Mesh as Shape

Arrays = dict[str, Array]
WHOLE, ROWS = PartitionSpec(), PartitionSpec(AXES)


def cut_axis(shape: tuple[int, ...], parts: int) -> int | None:
    """Along which axis an array is cut into equal parts; None where it is not."""
    if parts == 1 or len(shape) < 2:
        return None
    fitting = [axis for axis, size in enumerate(shape) if size % parts == 0]
    return max(fitting, key=lambda axis: shape[axis], default=None)


class OneDevice:
    """Everything on one device."""

    rows = 1  # what the number of a batch's rows has to be a multiple of

    def __init__(self, device: jax.Device) -> None:  # pyright: ignore[reportInvalidTypeForm]
        self.device = device

    def put(self, array: np.ndarray) -> Array:
        """A weight or a moment, in memory of its own."""
        return jax.device_put(array, self.device, may_alias=False)

    def batch(self, array: np.ndarray, filler: int) -> Any:
        """One of a batch's arrays (B, N)."""
        return array

    def read(self, array: Array) -> np.ndarray:
        """A whole array, in memory of its own."""
        return np.array(array)

    def gathered(self, weights: Arrays) -> Arrays:
        """Whole weights, on every device."""
        return weights

    def mark(self, model: nnx.Module) -> None:
        """Tell a skeleton which of its weights are cut, and how."""

    def gradients(self, function: Callable[..., tuple[Arrays, Array]]) -> Any:
        """The program of ``function(trained, frozen, arrays, key, tokens, first row)``."""
        return compiled(lambda *arguments: function(*arguments, 0), self.device)

    def loss(self, function: Callable[..., Array]) -> Any:
        """The program of ``function(trained, frozen, arrays)``, which sums over rows."""
        return jax.jit(function)

    def placed(self, tree: Any) -> Any:
        """How a program's results are to lie, given their shapes; None leaves it open."""
        return None

    def state(self, init: Callable[[Arrays], Any], trained: Arrays) -> Any:
        """A new state of the optimizer."""
        return jax.device_put(init(trained), self.device)


class OnMesh(OneDevice):
    """Rows and matrices cut over the devices of a mesh."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__(mesh.local_devices[0])
        self.mesh, self.rows = mesh, mesh.size
        self.copies, self.parts = (mesh.shape[axis] for axis in AXES)

    def cut(self, shape: tuple[int, ...]) -> PartitionSpec:
        """How an array of a shape is cut."""
        axis = cut_axis(shape, self.parts)
        return WHOLE if axis is None else PartitionSpec(*[None] * axis, SPLIT)

    def put(self, array: np.ndarray) -> Array:
        return self._made(np.asarray(array), self.cut(np.shape(array)))

    def batch(self, array: np.ndarray, filler: int) -> Array:
        return self.rows_of(filled_up(array, self.rows, filler))

    def rows_of(self, array: np.ndarray) -> Array:
        """An array of which each device has rows of its own."""
        return self._made(array, ROWS)

    def everywhere(self, array: np.ndarray) -> Array:
        """An array that every device has whole."""
        return self._made(np.asarray(array), WHOLE)

    def _made(self, array: np.ndarray, spec: PartitionSpec) -> Array:
        """An array of which each process places the parts of its own devices alone."""
        sharding = NamedSharding(self.mesh, spec)
        read = lambda index: np.array(array[index], order="C")  # noqa: E731 - never the same memory
        return jax.make_array_from_callback(array.shape, sharding, read)

    def read(self, array: Array) -> np.ndarray:
        return np.array(_gather(array, NamedSharding(self.mesh, WHOLE)))

    def gathered(self, weights: Arrays) -> Arrays:
        return {name: _gather(w, NamedSharding(self.mesh, WHOLE)) for name, w in weights.items()}

    def mark(self, model: nnx.Module) -> None:
        for _, variable in nnx.to_flat_state(nnx.state(model)):
            variable.set_metadata(CUT, cut_axis(tuple(variable.shape), self.parts))

    def gradients(self, function: Callable[..., tuple[Arrays, Array]]) -> Any:
        def run(trained: Arrays, frozen: Arrays, arrays: Any, key: Any, tokens: Any) -> Any:
            cuts, kept = self._cuts(trained), self._cuts(frozen)

            def own(trained: Arrays, frozen: Arrays, arrays: Any, key: Any, tokens: Any) -> Any:
                first_row = jax.lax.axis_index(AXES) * arrays[0].shape[0]
                gradients, loss = function(trained, frozen, arrays, key, tokens, first_row)
                return self._summed(gradients, loss, cuts)

            given = cuts, kept, ROWS, WHOLE, WHOLE
            mapped = self._mapped(own, given, (cuts, WHOLE))
            return mapped(trained, frozen, arrays, key, tokens)

        return compiled(run, self.device)

    def _summed(
        self, gradients: Arrays, loss: Array, cuts: Mapping[str, PartitionSpec]
    ) -> tuple[Arrays, Array]:
        """Gradients and loss summed over all devices.

        Those of cut weights are sums over a copy's devices already.
        """
        parts = {name: gradients[name] for name, cut in cuts.items() if cut != WHOLE}
        others = {name: gradients[name] for name, cut in cuts.items() if cut == WHOLE}
        if self.copies > 1:
            parts = jax.lax.psum(parts, AXES[0])
        others, loss = jax.lax.psum((others, loss), AXES)
        return parts | others, loss

    def loss(self, function: Callable[..., Array]) -> Any:
        def run(trained: Arrays, frozen: Arrays, arrays: tuple[Array, ...]) -> Array:
            def own(*arguments: Any) -> Array:
                return jax.lax.psum(function(*arguments), AXES)

            given = self._cuts(trained), self._cuts(frozen), ROWS
            return self._mapped(own, given, WHOLE)(trained, frozen, arrays)

        return jax.jit(run)

    def _cuts(self, arrays: Mapping[str, Any]) -> dict[str, PartitionSpec]:
        return {name: self.cut(array.shape) for name, array in arrays.items()}

    def _mapped(self, function: Callable[..., Any], given: Any, results: Any) -> Any:
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=given, out_specs=results, check_vma=False
        )

    def placed(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self.cut(leaf.shape)), tree)

    def state(self, init: Callable[[Arrays], Any], trained: Arrays) -> Any:
        return jax.jit(init, out_shardings=self.placed(jax.eval_shape(init, trained)))(trained)


def _gather(array: Array, sharding: NamedSharding) -> Array:
    """An array that lies whole on every device."""
    if array.sharding.is_equivalent_to(sharding, array.ndim):
        return array
    return _gathering(sharding)(array)


@functools.cache
def _gathering(sharding: NamedSharding) -> Any:
    return jax.jit(lambda x: x, out_shardings=sharding)


def place_of(mesh: Shape, device: str) -> OneDevice:
    """Where arrays lie, on the devices of all processes that a setting names."""
    if mesh.devices == 1:
        return OneDevice(find_device(device))
    devices, axes = find_devices(device), (AxisType.Auto,) * len(AXES)
    shape = mesh.data, mesh.fsdp
    return OnMesh(jax.make_mesh(shape, AXES, axes, devices=devices[: mesh.devices]))
