"""The twins as sides of a comparison, with a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import torch

import flax_transformer
import torch_transformer
from convert import torch_to_flax
from flax_transformer.weights import fill, skeleton, variables
from parity.forward.gradients import flax_gradients, torch_gradients
from parity.forward.ids import Ids
from parity.forward.number_formats import NUMPY, ONE_PASS, PLAIN, as_float64
from parity.forward.one_pass import one_pass_bfloat16
from parity.forward.recording import recorded_flax, recorded_torch, twin_first_layers, twin_modules
from parity.forward.streaming import Spilled, streamed_flax, streamed_torch
from parity.sides.side import Side, Trace, Weights


class TorchTwin(Side):
    """The PyTorch twin with a checkpoint's weights."""

    can_stream = True

    def model(self, precision: str) -> torch_transformer.Transformer:
        assert self.weights is not None
        wide = "float64" if precision == "float64" else "float32"
        model = torch_transformer.Transformer.skeleton(self.config, getattr(torch, wide))
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
        model = flax_transformer.Transformer.skeleton(self.config, dtype.type)
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
        kind = None if self.config.feature_dim else jnp.int32
        return jnp.asarray(ids.source, kind), jnp.asarray(ids.target, jnp.int32)

    def gradients(self, ids: Ids) -> tuple[float, Weights]:
        given, wanted, count = ids.for_loss(self.config)
        with jax.default_device(jax.devices(self.device)[0]):
            arrays = (ids.source, given, wanted)
            return flax_gradients(self.model("float64"), arrays, count, compiled=True)


TWINS: dict[str, Callable[..., Side]] = {"torch": TorchTwin, "jax": FlaxTwin}
