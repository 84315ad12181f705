"""Planted bugs between features and the encoder's layers: convolutions, their GELU, positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from parity.mutations.sinusoids import TABLES
from parity.mutations.subjects import Mutation, Subject, Variants, with_fields, with_weights
from parity.mutations.weights import groups
from torch_transformer.layers import ACTIVATIONS, Convolution
from torch_transformer.model import Encoder
from transformer_spec import TransformerConfig, sinusoid_table
from transformer_spec.config import SINUSOID_FREQUENCIES, SINUSOID_LAYOUTS
from transformer_spec.errors import ConfigError

FORMULA = "the formula's numbers"
KERNELS = ("encoder.conv1.weight", "encoder.conv2.weight")
FROZEN = "encoder.pos_embedding.weight"
AT_END, IN_FRONT = "conv2 padded at the end alone", "conv1 padded in front alone"
STRIDES = "conv1 at every other frame, conv2 at every one"
TURNED = "(M, W) read as (W, M)"
LATER, EARLIER = "each frame one too late", "each frame one too early"
OTHER_GELU = {
    f"{kind} for gelu{where}": (kind, places)
    for kind in ("gelu_tanh", "gelu_sigmoid", "relu", "silu", "identity")
    for where, places in (("", (1, 2)), (" after conv1", (1,)), (" after conv2", (2,)))
}
EVERYWHERE = "gelu_tanh for gelu, in the layers too"


def kernels_flipped(subject: Subject) -> Variants:
    """A convolution as mathematics has it, where the model correlates."""
    for where, names in groups(kernels_of(subject)):
        yield where, with_weights(subject, {n: subject.weights[n][..., ::-1] for n in names})


def kernels_transposed(subject: Subject) -> Variants:
    """Kernels as other frameworks lay them out, where the shape does not tell."""
    for name in kernels_of(subject):
        kernel = subject.weights[name]
        if kernel.shape[0] == kernel.shape[1]:
            yield (
                f"(in, out, 3) for (out, in, 3) in {name}",
                with_weights(subject, {name: kernel.swapaxes(0, 1)}),
            )
        for words, read in (
            ("(3, in, out) read as (out, in, 3)", kernel.T.reshape(kernel.shape)),
            ("(out, in, 3) read as (3, in, out)", kernel.reshape(kernel.shape[::-1]).T),
        ):
            yield f"{words} in {name}", with_weights(subject, {name: read})


def kernels_of(subject: Subject) -> list[str]:
    return [name for name in KERNELS if name in subject.weights]


def positions_by_formula(subject: Subject) -> Variants:
    """A stored table that is never trained computed anew, by the config's formula or another."""
    config = subject.config
    if config.encoder_positions != "frozen":
        return
    kinds = [(frequency, config.sinusoid_layout) for frequency in SINUSOID_FREQUENCIES]
    kinds += [(config.sinusoid_frequency, layout) for layout in SINUSOID_LAYOUTS]
    ours = config.sinusoid_frequency, config.sinusoid_layout
    for kind in dict.fromkeys((ours, *kinds)):
        table = formula(config, *kind)
        if table is not None:
            words = FORMULA if kind == ours else f"of {kind[0]}, {kind[1]}"
            yield words, with_weights(subject, {FROZEN: table[: len(subject.weights[FROZEN])]})
    for words, narrow in TABLES.items() if formula(config, *ours) is not None else ():
        table = narrow(config, torch.float64, torch.device("cpu")).numpy()
        kept = table[: len(subject.weights[FROZEN])]
        yield f"{FORMULA}, {words}", with_weights(subject, {FROZEN: kept})


def formula(config: TransformerConfig, frequency: str, layout: str) -> np.ndarray | None:
    """The table of sinusoids of a frequency and a layout; None where the width has none."""
    fields = {"sinusoid_frequency": frequency, "sinusoid_layout": layout}
    try:
        return sinusoid_table(replace(config, **fields), np.float64)
    except (ConfigError, ZeroDivisionError):
        return None


def gelu_after_convolutions(subject: Subject) -> Variants:
    """The activation of the layers, or an approximation, where the exact GELU belongs."""
    if not subject.config.feature_dim:
        return
    for words in OTHER_GELU:
        yield words, with_patch(subject, words)
    if subject.config.activation == "gelu":
        yield EVERYWHERE, with_patch(with_fields(subject, activation="gelu_tanh"), EVERYWHERE)


def features_patch(name: str, *slips: str) -> Mutation:
    """The code between features and layers changed, where there is any."""

    def variants(subject: Subject) -> Variants:
        for words in slips if subject.config.feature_dim else ():
            yield words, with_patch(subject, words)

    return Mutation(name, variants, one_way=True)


def key_biases(subject: Subject) -> Variants:
    """The bias of fcK left out: it adds the same to all scores of a query, which softmax drops."""
    names = [name for name in subject.weights if name.endswith(".fcK.bias")]
    if names:
        kept = {name: a for name, a in subject.weights.items() if name not in names}
        config = replace(subject.config, key_bias=False)
        yield (
            "left out; softmax drops it, and the logits are the same",
            Subject(config, kept, subject.patches),
        )


def with_patch(subject: Subject, name: str) -> Subject:
    return replace(subject, patches=(*subject.patches, name))


def other_gelu(kind: str, places: tuple[int, ...]) -> Callable[..., Tensor]:
    """``embed_features`` with another activation after some of the convolutions."""
    after = {n: ACTIVATIONS[kind if n in places else "gelu"] for n in (1, 2)}

    def embed_features(self: Encoder, features: Tensor, *others) -> Tensor:
        assert self.conv1 is not None and self.conv2 is not None
        x = after[1](self.conv1(features.to(self.conv1.weight.dtype)))
        return self.place(after[2](self.conv2(x)), *others)

    return embed_features


def same_padding(self: Convolution, x: Tensor) -> Tensor:
    """The padding that XLA and TensorFlow call SAME: of even lengths at stride 2, the end's."""
    W, count = x.shape[1], -(-x.shape[1] // self.stride)
    total = max((count - 1) * self.stride + 3 - W, 0)
    return correlated(self, x, total // 2, total - total // 2)


def causal_padding(self: Convolution, x: Tensor) -> Tensor:
    return correlated(self, x, *((2, 0) if self.stride == 1 else (1, 1)))


def exchanged_strides(self: Convolution, x: Tensor) -> Tensor:
    return correlated(self, x, 1, 1, 3 - self.stride)


def correlated(
    self: Convolution, x: Tensor, front: int, end: int, stride: int | None = None
) -> Tensor:
    """A convolution of (B, W, I) with so many frames of zeros at both ends."""
    padded = F.pad(x.transpose(1, 2), (front, end))
    return F.conv1d(padded, self.weight, self.bias, stride or self.stride).transpose(1, 2)


plain_embed_features = Encoder.embed_features


def turned(self: Encoder, features: Tensor, *others) -> Tensor:
    """What has its bins before its frames, cut into frames without being transposed."""
    read = features.transpose(1, 2).reshape(features.shape)
    return plain_embed_features(self, read, *others)


def one_frame_off(step: int) -> Callable[..., Tensor]:
    """Frames that begin with the second, or behind one that is none."""

    def embed_features(self: Encoder, features: Tensor, *others) -> Tensor:
        return plain_embed_features(self, torch.roll(features, step, 1), *others)

    return embed_features


FEATURE_PATCHES: dict[str, tuple[object, str, Callable]] = {
    **{
        words: (Encoder, "embed_features", other_gelu(kind, places))
        for words, (kind, places) in OTHER_GELU.items()
    },
    EVERYWHERE: (Encoder, "embed_features", other_gelu("gelu_tanh", (1, 2))),
    AT_END: (Convolution, "forward", same_padding),
    IN_FRONT: (Convolution, "forward", causal_padding),
    STRIDES: (Convolution, "forward", exchanged_strides),
    TURNED: (Encoder, "embed_features", turned),
    LATER: (Encoder, "embed_features", one_frame_off(1)),
    EARLIER: (Encoder, "embed_features", one_frame_off(-1)),
}
