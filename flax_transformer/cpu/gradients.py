"""Bias, norms, softmax and ReLU with gradients written out, for speed and memory.

XLA sums a gradient over all tokens (for biases and LayerNorm's scale) many times slower than it
multiplies matrices, and recomputes LayerNorm inside every weight gradient. Written as products
with a row of ones, on flattened tokens, a training step on two CPU cores took two thirds of the
time (docs/log.md). Softmax and ReLU keep their result and nothing else for the way back. Values and
gradients are those of flax.nnx and jax.nn.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from flax_transformer.precision import full_precision


@full_precision
def sum_over_tokens(x: Float[Array, "*B D"]) -> Float[Array, "D"]:
    flat = x.reshape(-1, x.shape[-1])
    return (jnp.ones((1, len(flat)), x.dtype) @ flat)[0]


@jax.custom_vjp
def add_bias(x: Float[Array, "N D"], bias: Float[Array, "D"]) -> Float[Array, "N D"]:
    return x + bias


def _add_bias_forward(x, bias):
    return x + bias, None


def _add_bias_backward(_, gradient):
    return gradient, sum_over_tokens(gradient)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@jax.custom_vjp
def layer_norm(
    x: Float[Array, "*B D"], scale: Float[Array, "D"], bias: Float[Array, "D"], epsilon: float
) -> Float[Array, "*B D"]:
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(x, scale, bias, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    normal = centred * inverse
    return normal * scale + bias, (normal, inverse, scale)


def _layer_norm_backward(kept, gradient):
    normal, inverse, scale = kept
    inner = gradient * scale
    mean, along = inner.mean(-1, keepdims=True), (inner * normal).mean(-1, keepdims=True)
    d_x = jax.lax.optimization_barrier(inverse * (inner - mean - normal * along))
    return d_x, sum_over_tokens(gradient * normal), sum_over_tokens(gradient), None


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def rms_norm(
    x: Float[Array, "*B D"], scale: Float[Array, "D"], epsilon: float
) -> Float[Array, "*B D"]:
    return _rms_norm_forward(x, scale, epsilon)[0]


def _rms_norm_forward(x, scale, epsilon):
    inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon)
    normal = x * inverse
    return normal * scale, (normal, inverse, scale)


def _rms_norm_backward(kept, gradient):
    normal, inverse, scale = kept
    inner = gradient * scale
    along = (inner * normal).mean(-1, keepdims=True)
    d_x = jax.lax.optimization_barrier(inverse * (inner - normal * along))
    return d_x, sum_over_tokens(gradient * normal), None


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


@jax.custom_vjp
def std_norm(
    x: Float[Array, "*B D"], scale: Float[Array, "D"], bias: Float[Array, "D"], epsilon: float
) -> Float[Array, "*B D"]:
    return _std_norm_forward(x, scale, bias, epsilon)[0]


def _std_norm_forward(x, scale, bias, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).sum(-1, keepdims=True) / (x.shape[-1] - 1))
    normal = centred / (deviation + epsilon)
    return normal * scale + bias, (normal, deviation, scale, epsilon)


def _std_norm_backward(kept, gradient):
    normal, deviation, scale, epsilon = kept
    inner = gradient * scale
    straight = (inner - inner.mean(-1, keepdims=True)) / (deviation + epsilon)
    along = (inner * normal).sum(-1, keepdims=True) / (scale.shape[0] - 1)
    # Where the deviation is 0, so is what stands above it.
    turned = normal * along / jnp.where(deviation == 0, 1, deviation)
    d_x = jax.lax.optimization_barrier(straight - turned)
    return d_x, sum_over_tokens(gradient * normal), sum_over_tokens(gradient), None


std_norm.defvjp(_std_norm_forward, _std_norm_backward)


@jax.custom_vjp
def softmax(scores: Float[Array, "*B K"]) -> Float[Array, "*B K"]:
    """jax.nn.softmax over the last axis."""
    return jax.nn.softmax(scores, -1)


def _softmax_forward(scores):
    probabilities = jax.nn.softmax(scores, -1)
    return probabilities, probabilities


def _softmax_backward(probabilities, gradient):
    along = (gradient * probabilities).sum(-1, keepdims=True)
    return ((gradient - along) * probabilities,)


softmax.defvjp(_softmax_forward, _softmax_backward)


@jax.custom_vjp
def relu(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """jax.nn.relu."""
    return jax.nn.relu(x)


def _relu_forward(x):
    positive = jax.nn.relu(x)
    return positive, positive


def _relu_backward(positive, gradient):
    return (jnp.where(positive > 0, gradient, 0),)


relu.defvjp(_relu_forward, _relu_backward)
