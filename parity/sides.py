"""One side of a comparison: a model that gives its sub-steps, its loss and its gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from flax import nnx

import flax_transformer
import torch_transformer
from convert import torch_to_flax
from flax_transformer.training import objective as flax_objective
from flax_transformer.weights import fill, skeleton, variables
from parity.inputs import Ids
from parity.one_pass import one_pass_bfloat16
from parity.recording import recorded_flax, recorded_torch, twin_first_layers, twin_modules
from torch_transformer.training import objective as torch_objective
from torch_transformer.weights import tensors
from transformer_spec import TransformerConfig, to_torch, trained_names

Weights = dict[str, np.ndarray]
Trace = dict[str, np.ndarray]
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
    """``given`` is what the user typed, ``what`` what it is; weights have canonical names."""

    given: str
    what: str
    framework: str
    config: TransformerConfig
    weights: Weights | None = None
    device: str = "cpu"

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


class TorchTwin(Side):
    """The PyTorch twin with a checkpoint's weights."""

    @property
    def place(self) -> str:
        return "cuda" if self.device == "gpu" else "cpu"

    def model(self, precision: str) -> torch_transformer.Transformer:
        assert self.weights is not None
        wide = "float64" if precision == "float64" else "float32"
        model = torch_transformer.Transformer(self.config, dtype=getattr(torch, wide))
        held = {name: array.astype(NUMPY[wide]) for name, array in self.weights.items()}
        torch_transformer.load_weights(model, held)
        return model.to(self.place, getattr(torch, precision)).eval()

    def trace(self, ids: Ids, precision: str) -> Trace:
        if precision not in NUMPY:
            return {}
        model = self.model(precision)
        with (
            torch.no_grad(),
            recorded_torch(model, twin_modules(model), twin_first_layers(model)) as found,
        ):
            model(*self.tokens(ids))
        return {name: as_float64(x) for name, x in found.items()}

    def tokens(self, ids: Ids) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self.place) for array in ids]

    def gradients(self, ids: Ids) -> tuple[float, Weights]:
        model = self.model("float64")
        given, wanted, count = ids.for_loss(self.config)
        parts = [torch.from_numpy(x).to(self.place) for x in (ids.source, given, wanted)]
        loss = torch_objective(model, *parts, smoothing=0.0) / count
        loss.backward()
        held = tensors(model)
        found = {name: held[name].grad for name in trained_names(self.config)}
        return float(loss.detach()), {n: as_float64(g) for n, g in found.items() if g is not None}


class FlaxTwin(Side):
    """The Flax twin with a checkpoint's weights, compiled as it is in use."""

    def model(self, precision: str) -> flax_transformer.Transformer:
        assert self.weights is not None
        dtype = NUMPY[PLAIN.get(precision, precision)]
        held = {name: array.astype(dtype) for name, array in self.weights.items()}
        model = flax_transformer.Transformer(self.config, nnx.Rngs(0), dtype.type)
        flax_transformer.load_weights(model, torch_to_flax(held, self.config))
        return model

    def trace(self, ids: Ids, precision: str) -> Trace:
        with jax.default_device(jax.devices(self.device)[0]):
            model = self.model(precision)
            bones = skeleton(model)

            def run(held: Mapping[str, jax.Array], source: jax.Array, target: jax.Array) -> Trace:
                twin = fill(bones, held)
                with recorded_flax(twin) as found:
                    twin(source, target)
                return found

            held = {name: variable[...] for name, variable in variables(model).items()}
            wanted = one_pass_bfloat16(run) if precision == ONE_PASS else run
            found = jax.jit(wanted)(held, *self.tokens(ids))
        return {name: as_float64(x) for name, x in found.items()}

    def tokens(self, ids: Ids) -> list[jax.Array]:
        return [jnp.asarray(array, jnp.int32) for array in ids]

    def gradients(self, ids: Ids) -> tuple[float, Weights]:
        with jax.default_device(jax.devices(self.device)[0]):
            model = self.model("float64")
            *texts, count = ids.for_loss(self.config)
            source, given, wanted = (jnp.asarray(x, jnp.int32) for x in (ids.source, *texts))
            bones = skeleton(model)

            def mean_loss(held: Mapping[str, jax.Array]) -> jax.Array:
                twin = fill(bones, held)
                loss = flax_objective(twin, source, given, wanted, smoothing=0.0)
                return loss / count

            held = {name: variable[...] for name, variable in variables(model).items()}
            loss, found = jax.value_and_grad(mean_loss)(held)
        named = dict(to_torch(name, as_float64(g)) for name, g in found.items())
        return float(loss), {name: named[name] for name in trained_names(self.config)}


def as_float64(x: torch.Tensor | jax.Array) -> np.ndarray:
    """In memory of the host; bfloat16 has no NumPy form in PyTorch."""
    if isinstance(x, torch.Tensor):
        return x.detach().to("cpu", torch.float64).numpy().copy()
    return np.asarray(x).astype(np.float64)


TWINS: dict[str, Callable[..., Side]] = {"torch": TorchTwin, "jax": FlaxTwin}
