"""The tutorial's Transformer written again in NumPy float64, and random checkpoints of both forms.

Nothing here is shared with the product: names and arithmetic are those of the tutorial's code.
Scores are not divided by the root of the head width, masked scores become -1e4, the result of the
ReLU is overwritten, only the encoder has (learned) positions, and the first form uses the one
``layerNorm`` of a layer after every sub-layer. The form "shared" is the first with one attention
module in the decoder layer too, used over the target and over the encoder.
"""

from dataclasses import dataclass

import numpy as np

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sizes:
    source_vocab_size: int = 11
    target_vocab_size: int = 13
    hidden_dim: int = 10
    inner_dim: int = 7
    num_heads: int = 2
    num_encoder_layers: int = 3
    num_decoder_layers: int = 2
    max_length: int = 17

    def flags(self) -> list[str]:
        return [part for name, value in vars(self).items()
                for part in ("--" + name.replace("_", "-"), str(value))]  # fmt: skip


def random_state(sizes: Sizes, form: str, seed: int = 0) -> State:
    """A state dict of the "first", "shared" or "second" form, in float64."""
    generator = np.random.default_rng(seed)
    shapes = _shapes(sizes, form)
    return {name: generator.normal(0, 0.5, shape) for name, shape in shapes.items()}


def _shapes(sizes: Sizes, form: str) -> dict[str, tuple[int, ...]]:
    D = sizes.hidden_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for half, vocab, layers in (
        ("encoder", sizes.source_vocab_size, sizes.num_encoder_layers),
        ("decoder", sizes.target_vocab_size, sizes.num_decoder_layers),
    ):
        shapes[f"{half}.embedding.weight"] = (vocab, D)
        shapes[f"{half}.pos_embedding.weight"] = (sizes.max_length, D)
        for i in range(layers):
            layer = f"{half}.{half[:3]}_layers.{i}"
            for part in _attentions(half, form):
                for linear in ("fcQ", "fcK", "fcV", "fcOut"):
                    shapes[f"{layer}.{part}.{linear}.weight"] = (D, D)
                    shapes[f"{layer}.{part}.{linear}.bias"] = (D,)
            for norm in _norms(half, form):
                shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (D,)
            for linear, shape in (("fc1", (sizes.inner_dim, D)), ("fc2", (D, sizes.inner_dim))):
                shapes[f"{layer}.ffn.{linear}.weight"] = shape
                shapes[f"{layer}.ffn.{linear}.bias"] = shape[:1]
    shapes["decoder.finalFc.weight"] = (sizes.target_vocab_size, D)
    shapes["decoder.finalFc.bias"] = (sizes.target_vocab_size,)
    return shapes


def _attentions(half: str, form: str) -> list[str]:
    if half == "encoder" or form == "shared":
        return ["multiheadattention"]
    return ["multiheadattention1", "multiheadattention2"]


def _norms(half: str, form: str) -> list[str]:
    if form != "second":
        return ["layerNorm"]
    return [f"layerNorm{i}" for i in ((1, 2) if half == "encoder" else (1, 2, 3))]


def logits(state: State, sizes: Sizes, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(B, S), (B, T) -> (B, T, V) as the tutorial's model computes them."""
    source_mask = (source != 0)[:, None, None, :]
    causal = np.tril(np.ones((target.shape[1], target.shape[1]), bool))
    target_mask = (target != 0)[:, None, None, :] & causal
    memory = _encode(state, sizes, source, source_mask)
    x = state["decoder.embedding.weight"][target]
    for i in range(sizes.num_decoder_layers):
        layer = f"decoder.dec_layers.{i}"
        y = _attention(state, f"{layer}.multiheadattention1", sizes, x, x, target_mask)
        x = _norm(state, layer, 1, x + y)
        y = _attention(state, f"{layer}.multiheadattention2", sizes, x, memory, source_mask)
        x = _norm(state, layer, 2, x + y)
        x = _norm(state, layer, 3, x + _feed_forward(state, f"{layer}.ffn", x))
    return _linear(state, "decoder.finalFc", x)


def _encode(state: State, sizes: Sizes, source: np.ndarray, mask: np.ndarray) -> np.ndarray:
    positions = np.arange(source.shape[1])
    x = state["encoder.embedding.weight"][source] + state["encoder.pos_embedding.weight"][positions]
    for i in range(sizes.num_encoder_layers):
        layer = f"encoder.enc_layers.{i}"
        y = _attention(state, f"{layer}.multiheadattention", sizes, x, x, mask)
        x = _norm(state, layer, 1, x + y)
        x = _norm(state, layer, 2, x + _feed_forward(state, f"{layer}.ffn", x))
    return x


def _linear(state: State, name: str, x: np.ndarray) -> np.ndarray:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, layer: str, number: int, x: np.ndarray) -> np.ndarray:
    name = f"{layer}.layerNorm{number}"
    if f"{name}.weight" not in state:
        name = f"{layer}.layerNorm"
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, -1, keepdims=True) + 1e-5)
    return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def _feed_forward(state: State, name: str, x: np.ndarray) -> np.ndarray:
    hidden = np.maximum(_linear(state, f"{name}.fc1", x), 0)
    hidden = _linear(state, f"{name}.fc1", x)  # the tutorial's code overwrites what ReLU gave
    return _linear(state, f"{name}.fc2", hidden)


def _attention(
    state: State, name: str, sizes: Sizes, x: np.ndarray, memory: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    if f"{name}.fcQ.weight" not in state:
        name = name[:-1]

    def heads(part: str, y: np.ndarray) -> np.ndarray:  # (B, L, D) -> (B, H, L, A)
        split = _linear(state, f"{name}.{part}", y).reshape(*y.shape[:2], sizes.num_heads, -1)
        return split.transpose(0, 2, 1, 3)

    scores = heads("fcQ", x) @ heads("fcK", memory).transpose(0, 1, 3, 2)
    scores = np.where(mask, scores, -1e4)
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = exponents / exponents.sum(-1, keepdims=True) @ heads("fcV", memory)
    joined = mixed.transpose(0, 2, 1, 3).reshape(x.shape)
    return _linear(state, f"{name}.fcOut", joined)


def batch(sizes: Sizes, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (3, 9) and (3, 5), two rows of each ending in padding."""
    generator = np.random.default_rng(seed)
    source = generator.integers(1, sizes.source_vocab_size, (3, 9))
    target = generator.integers(1, sizes.target_vocab_size, (3, 5))
    source[1, 6:] = source[2, 2:] = target[0, 4:] = target[2, 2:] = 0
    return source, target
