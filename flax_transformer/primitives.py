"""Linear, norms and Embed as the twin has them: they draw no numbers, for they are given."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from flax_transformer.cpu.gradients import layer_norm, rms_norm, std_norm
from flax_transformer.cpu.products import linear
from transformer_spec.inventory import CONVOLUTION_WIDTH

SPLIT = "fsdp"  # the axis of a mesh that weights are cut over
CUT = "cut_along"  # a variable is marked with the axis of its own along which it is cut


def whole(variable: nnx.Variable) -> Array:
    """A weight as the model computes with it: gathered, where it is cut over devices."""
    axis = variable.get_metadata().get(CUT)
    if axis is None:
        return variable[...]
    return jax.lax.all_gather(variable[...], SPLIT, axis=axis, tiled=True)


def empty(*shape: int) -> Any:
    """What stands for an array until numbers are given."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


class Frozen(nnx.Variable):
    """A weight that is stored and never trained."""


class Embed(nnx.Module):
    """A table with a row for each token or position."""

    def __init__(self, rows: int, dim: int) -> None:
        self.embedding = nnx.Param(empty(rows, dim))


class FrozenTable(nnx.Module):
    """A table that is stored and never trained: no parameter."""

    def __init__(self, rows: int, dim: int) -> None:
        self.embedding = Frozen(empty(rows, dim))


class Linear(nnx.Module):
    """x @ kernel + bias."""

    def __init__(self, in_dim: int, out_dim: int, bias: bool) -> None:
        self.kernel = nnx.Param(empty(in_dim, out_dim))
        self.bias = nnx.Param(empty(out_dim)) if bias else None

    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        return linear(x, whole(self.kernel), None if self.bias is None else self.bias[...])


class Convolution(nnx.Module):
    """A correlation over three frames, with one of zeros at each end, at every ``stride``.

    One product over the frames that a place sees, side by side: XLA's own convolution is slow.
    """

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        self.kernel = nnx.Param(empty(CONVOLUTION_WIDTH, in_dim, out_dim))
        self.bias, self.stride = nnx.Param(empty(out_dim)), stride

    def __call__(self, x: Float[Array, "B W I"]) -> Float[Array, "B S O"]:
        places = range(0, x.shape[1], self.stride)
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        last = len(places) * self.stride
        seen = [padded[:, k : k + last : self.stride] for k in range(CONVOLUTION_WIDTH)]
        kernel = whole(self.kernel)
        flat = kernel.reshape(-1, kernel.shape[-1])  # (3, I, O) -> (3 x I, O)
        return linear(jnp.concatenate(seen, -1), flat, self.bias[...])


class LayerNorm(nnx.Module):
    """LayerNorm (Ba et al. 2016) with the two-pass variance that PyTorch computes."""

    def __init__(self, dim: int, epsilon: float) -> None:
        self.scale, self.bias = nnx.Param(empty(dim)), nnx.Param(empty(dim))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class RMSNorm(nnx.Module):
    """RMSNorm (Zhang and Sennrich 2019): no mean is taken off, and there is no bias."""

    def __init__(self, dim: int, epsilon: float) -> None:
        self.scale, self.bias = nnx.Param(empty(dim)), None
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return rms_norm(x, self.scale[...], self.epsilon)


class StdNorm(nnx.Module):
    """Divides by the unbiased standard deviation plus epsilon, as the Annotated Transformer does.

    Where all features of a vector are equal the deviation is 0, and its gradient is taken as 0.
    """

    def __init__(self, dim: int, epsilon: float) -> None:
        self.scale, self.bias = nnx.Param(empty(dim)), nnx.Param(empty(dim))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return std_norm(x, self.scale[...], self.bias[...], self.epsilon)
