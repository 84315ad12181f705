"""How far the twins are apart, bottom-up; the tests hold these numbers to their bounds."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import torch

import flax_transformer
import torch_transformer
from parity.forward.gradients import flax_gradients, torch_gradients
from parity.forward.measures import largest
from parity.twins.cases import inputs
from parity.twins.recursive_sums import RecursiveSums
from transformer_spec import TransformerConfig

Pair = tuple[torch_transformer.Transformer, flax_transformer.Transformer]
Numbers = dict[str, float]

TIMES_RECURSIVE = 2


class Twins:
    """A config's two models with the same weights on one device, and inputs for both."""

    def __init__(
        self, config: TransformerConfig, dtype: str, device: str = "cpu", seed: int = 1
    ) -> None:
        self.config, self.dtype = config, np.dtype(dtype)
        self.torch_device = "cuda" if device == "gpu" else "cpu"
        self.jax_device = jax.devices(device)[0]
        self.torch = torch_transformer.Transformer(config, seed, getattr(torch, dtype))
        self.torch.to(self.torch_device)
        with jax.default_device(self.jax_device):
            self.flax = flax_transformer.Transformer(config, seed, self.dtype.type)
        self.perturb()
        self.source, self.target = inputs(config)

    def perturb(self) -> None:
        """Move biases, norms and padding off their first zeros and ones, which hide mistakes.

        RMSNorm of a zero vector multiplies gradients by 1/sqrt(epsilon), again in every layer: they
        reach 1e6, of which float64 keeps 1e-10.
        """
        generator = np.random.default_rng(2)
        canonical = torch_transformer.weights(self.torch)
        for array in canonical.values():
            if array.ndim == 1:
                array += generator.normal(0, 0.1, array.shape).astype(array.dtype)
        for half in ("encoder", "decoder"):
            table = canonical.get(f"{half}.embedding.weight")
            if table is not None:
                table[self.config.pad_id] = generator.normal(0, 0.1, self.config.hidden_dim)
        torch_transformer.load_weights(self.torch, canonical)
        with jax.default_device(self.jax_device):
            from convert import torch_to_flax

            flax_transformer.load_weights(self.flax, torch_to_flax(canonical, self.config))

    def to_torch(self, array: np.ndarray) -> torch.Tensor:
        wide = np.int64 if array.dtype.kind == "i" else array.dtype
        return torch.from_numpy(array.astype(wide)).to(self.torch_device)

    def to_jax(self, array: np.ndarray) -> jax.Array:
        return jax.device_put(array, self.jax_device)

    def random(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(3).normal(size=shape).astype(self.dtype)

    def apart(self, run: Callable, *arrays: np.ndarray) -> float:
        """Largest absolute difference of ``run(model, *arrays)`` on the two models."""
        with torch.no_grad():
            ours = run(self.torch, *map(self.to_torch, arrays)).cpu().numpy()
        return largest(ours - np.asarray(run(self.flax, *map(self.to_jax, arrays))))


def bottom_up(twins: Twins) -> Numbers:
    """Largest difference of each part: attention, feed-forward, layers, halves, logits."""
    config = twins.config
    real = twins.torch.real_source(twins.to_torch(twins.source)).cpu().numpy()
    S, mask = real.shape[1], real[:, None, None, :]
    x, memory = twins.random(5, S, config.hidden_dim), twins.random(5, S, config.hidden_dim)
    ahead = np.tril(np.ones((S, S), bool))[None, None] & mask
    # The layers are given masks in which every query sees a key (never_empty).
    mask, ahead = (m | ~m.any(-1, keepdims=True) for m in (mask, ahead))

    def attend(model, x, memory, mask):
        attention = model.decoder.dec_layers[0].multiheadattention2
        return attention(x, attention.keys_values(memory), mask)

    def decoder_layer(model, x, ahead, memory, mask):
        layer = model.decoder.dec_layers[-1]
        return layer(x, ahead, layer.multiheadattention2.keys_values(memory), mask)

    return {
        "attention": twins.apart(attend, x, memory, mask),
        "feed-forward": twins.apart(lambda m, x: m.decoder.dec_layers[0].ffn(x), x),
        "encoder layer": twins.apart(lambda m, x, k: m.encoder.enc_layers[0](x, k), x, mask),
        "decoder layer": twins.apart(decoder_layer, x, ahead, memory, mask),
        "encoder": twins.apart(lambda m, s: m.encode(s), twins.source),
        "decoder": twins.apart(
            lambda m, t, h, s: m.decoder_states(t, h, s), twins.target, memory, twins.source
        ),
        "logits": twins.apart(lambda m, s, t: m(s, t), twins.source, twins.target),
    }


def loss_and_gradients(
    twins: Twins, smoothing: float = 0.1, dropout_key: int | None = None
) -> tuple[Numbers, dict[str, np.ndarray]]:
    """Differences of the mean loss and of every gradient, and PyTorch's gradients by name."""
    arrays = twins.source, twins.target[:, :-1], twins.target[:, 1:]
    tokens = int((arrays[2] != twins.config.pad_id).sum())
    masks = (None, None)
    if dropout_key is not None:
        masks = torch_transformer.Dropout(dropout_key), flax_transformer.Dropout(dropout_key)
    ours, our_gradients = torch_gradients(twins.torch, arrays, tokens, smoothing, masks[0])
    with jax.default_device(twins.jax_device):
        theirs, their_gradients = flax_gradients(twins.flax, arrays, tokens, smoothing, masks[1])
    differences = {
        name: largest(our_gradients[name] - their_gradients[name]) for name in our_gradients
    }
    return {"loss": abs(ours - theirs)} | differences, our_gradients


@dataclass(frozen=True)
class Float32Errors:
    """Largest error of float32 logits against their float64 truth; ``allowed`` bounds each.

    ``spread`` is the standard deviation of the true logits.
    """

    torch: float
    jax: float
    recursive: float
    spread: float = 1.0

    @property
    def allowed(self) -> float:
        """Twice what sums taken term after term err, on whatever processor."""
        return TIMES_RECURSIVE * self.recursive


def float32_errors(config: TransformerConfig, device: str = "cpu") -> Float32Errors:
    """Each twin and the plain model in float32, beside the PyTorch twin in float64."""
    narrow, wide = Twins(config, "float32", device), Twins(config, "float64", "cpu")
    held = torch_transformer.weights(narrow.torch)
    exact = {name: array.astype(np.float64) for name, array in held.items()}
    torch_transformer.load_weights(wide.torch, exact)
    ids = wide.source, wide.target
    with torch.no_grad():
        truth = wide.torch(*map(wide.to_torch, ids)).numpy()
        ours = narrow.torch(*map(narrow.to_torch, ids)).cpu().numpy()
    theirs = np.asarray(narrow.flax(narrow.to_jax(ids[0]), narrow.to_jax(ids[1])))
    plain = RecursiveSums(config, held)(*ids)
    errors = (largest(logits - truth) for logits in (ours, theirs, plain))
    return Float32Errors(*errors, spread=float(truth.std()))
