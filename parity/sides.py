"""One side of a comparison: a model that gives its sub-steps, its loss and its gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

import flax_transformer
import torch_transformer
from convert import torch_to_flax
from flax_transformer.weights import fill, skeleton, variables
from parity.gradients import flax_gradients, torch_gradients
from parity.inputs import Ids
from parity.one_pass import one_pass_bfloat16
from parity.recording import recorded_flax, recorded_torch, twin_first_layers, twin_modules
from parity.streaming import Spilled, streamed_flax, streamed_torch
from transformer_spec import TransformerConfig

Weights = dict[str, np.ndarray]
Trace = Mapping[str, np.ndarray]
NUMPY = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
# What a TPU does with float32 unless it is asked for more; emulated by the Flax twin.
ONE_PASS = "one-pass-bfloat16"
PLAIN = {ONE_PASS: "float32"}


@dataclass
class Side(ABC):
    """``given`` is what the user typed, ``what`` what it is; weights have canonical names.

    Weights may be read from a file whenever they are asked for. ``streamed`` asks for one module's
    weights in memory at a time.
    """

    given: str
    what: str
    framework: str
    config: TransformerConfig
    weights: Mapping[str, np.ndarray] | None = None
    device: str = "cpu"
    streamed: bool = False
    can_stream: ClassVar[bool] = False

    @abstractmethod
    def trace(self, ids: Ids, precision: str) -> Trace:
        """Every sub-step that can be seen, logits among them, as float64 arrays (B, K, D).

        Nothing where this side cannot compute in that precision.
        """

    def gradients(self, ids: Ids) -> tuple[float, Weights] | None:
        """Loss per real target token and its gradients by canonical name, in float64.

        None where there is no way to them.
        """
        return None

    def untrained_rows(self) -> dict[str, int]:
        """Tables (canonical names) with a row that never gets a gradient from being looked up."""
        return {}

    def held_bytes(self) -> int:
        """Bytes that are in memory whatever is done about it, and not there yet."""
        return 0

    def stored_bytes(self) -> int:
        """Bytes of the weights as they are stored, where those are still to be read."""
        return getattr(self.weights, "nbytes", 0)

    def read_all(self) -> None:
        """Take all weights into memory."""
        self.weights = None if self.weights is None else dict(self.weights.items())

    @property
    def torch_place(self) -> str:
        """PyTorch's word for the device."""
        return "cuda" if self.device == "gpu" else "cpu"


class TorchTwin(Side):
    """The PyTorch twin with a checkpoint's weights."""

    can_stream = True

    def model(self, precision: str) -> torch_transformer.Transformer:
        assert self.weights is not None
        wide = "float64" if precision == "float64" else "float32"
        model = torch_transformer.Transformer(self.config, dtype=getattr(torch, wide))
        held = {name: array.astype(NUMPY[wide]) for name, array in self.weights.items()}
        torch_transformer.load_weights(model, held)
        return model.to(self.torch_place, getattr(torch, precision)).eval()

    def trace(self, ids: Ids, precision: str) -> Trace:
        if precision not in NUMPY:
            return {}
        if self.streamed:
            return self.streamed_trace(ids, precision)
        model = self.model(precision)
        with (
            torch.no_grad(),
            recorded_torch(model, twin_modules(model), twin_first_layers(model)) as found,
        ):
            model(*self.tokens(ids))
        return {name: as_float64(x) for name, x in found.items()}

    def streamed_trace(self, ids: Ids, precision: str) -> Trace:
        assert self.weights is not None
        found, dtype = Spilled(as_float64), getattr(torch, precision)
        with (
            streamed_torch(self.config, self.weights, dtype, self.torch_place) as model,
            torch.no_grad(),
            recorded_torch(model, twin_modules(model), twin_first_layers(model), found),
        ):
            model(*self.tokens(ids))
        return found

    def tokens(self, ids: Ids) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self.torch_place) for array in ids]

    def gradients(self, ids: Ids) -> tuple[float, Weights]:
        given, wanted, count = ids.for_loss(self.config)
        return torch_gradients(self.model("float64"), (ids.source, given, wanted), count)


class FlaxTwin(Side):
    """The Flax twin with a checkpoint's weights, compiled as it is in use."""

    can_stream = True

    def model(self, precision: str) -> flax_transformer.Transformer:
        assert self.weights is not None
        dtype = NUMPY[PLAIN.get(precision, precision)]
        held = {name: array.astype(dtype) for name, array in self.weights.items()}
        model = flax_transformer.Transformer(self.config, 0, dtype.type)
        flax_transformer.load_weights(model, torch_to_flax(held, self.config))
        return model

    def trace(self, ids: Ids, precision: str) -> Trace:
        with jax.default_device(jax.devices(self.device)[0]):
            if self.streamed:
                return {} if precision == ONE_PASS else self.streamed_trace(ids, precision)
            model = self.model(precision)
            bones = skeleton(model)

            def run(held: Mapping[str, jax.Array], source: jax.Array, target: jax.Array) -> Any:
                twin = fill(bones, held)
                with recorded_flax(twin, {}) as found:
                    twin(source, target)
                return found

            held = {name: variable[...] for name, variable in variables(model).items()}
            wanted = one_pass_bfloat16(run) if precision == ONE_PASS else run
            found = jax.jit(wanted)(held, *self.tokens(ids))
        return {name: as_float64(x) for name, x in found.items()}

    def streamed_trace(self, ids: Ids, precision: str) -> Trace:
        assert self.weights is not None
        found, dtype = Spilled(as_float64), NUMPY[precision].type
        with (
            streamed_flax(self.config, self.weights, dtype) as model,
            recorded_flax(model, found),
        ):
            model(*self.tokens(ids))
        jax.clear_caches()  # hundreds of megabytes of small programs for shapes that are done with
        return found

    def tokens(self, ids: Ids) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(ids.source, jnp.int32), jnp.asarray(ids.target, jnp.int32)

    def gradients(self, ids: Ids) -> tuple[float, Weights]:
        given, wanted, count = ids.for_loss(self.config)
        with jax.default_device(jax.devices(self.device)[0]):
            arrays = (ids.source, given, wanted)
            return flax_gradients(self.model("float64"), arrays, count, compiled=True)


def as_float64(x: torch.Tensor | jax.Array) -> np.ndarray:
    """In memory of the host; bfloat16 has no NumPy form in PyTorch."""
    if isinstance(x, torch.Tensor):
        return x.detach().to("cpu", torch.float64).numpy().copy()
    return np.asarray(x).astype(np.float64)


TWINS: dict[str, Callable[..., Side]] = {"torch": TorchTwin, "jax": FlaxTwin}
