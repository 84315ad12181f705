"""The layers of the Transformer in PyTorch, line for line the twin of flax_transformer/layers.py.

Letters: B batch, S source length, T target length, Q query length, K key length, D hidden_dim,
H num_heads, A head_dim, F inner_dim, V vocabulary. Masks are True where a key may be seen.
Sections are those of Vaswani et al. 2017, "Attention Is All You Need".
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torch_transformer import products
from torch_transformer.dropout import Dropout, drop
from torch_transformer.precision import wide
from torch_transformer.relative import Bias, Distances, relative_bias
from transformer_spec import RELATIVE, TransformerConfig
from transformer_spec.inventory import CONVOLUTION_WIDTH

KeysValues = tuple[Float[Tensor, "B H K A"], Float[Tensor, "B H K A"]]
MemoryKeysValues = tuple[Float[Tensor, "N H S A"], Float[Tensor, "N H S A"]]
# The encoder's output, or what a layer makes of it, where that is kept for many calls.
Memory = Float[Tensor, "N S D"] | MemoryKeysValues
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "identity": lambda x: x,
}


class Linear(nn.Linear):
    """x @ weight.T + bias; draws no first numbers, for they are given."""

    quick = False  # whether it is by oneDNN on every processor

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return products.linear(input, self.weight, self.bias, self.quick)


class Convolution(nn.Module):
    """A correlation over three frames, with one of zeros at each end, at every ``stride``."""

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim, CONVOLUTION_WIDTH))
        self.bias, self.stride = nn.Parameter(torch.empty(out_dim)), stride

    def forward(self, x: Float[Tensor, "B W I"]) -> Float[Tensor, "B S O"]:
        found = F.conv1d(x.transpose(1, 2), self.weight, self.bias, self.stride, padding=1)
        return found.transpose(1, 2)


class StdNorm(nn.Module):
    """Divides by the unbiased standard deviation plus epsilon, as the Annotated Transformer does.

    Where all features of a vector are equal the deviation is 0, and its gradient is taken as 0.
    """

    def __init__(self, dim: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(dim)) for _ in range(2))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        given = x.to(wide(x.dtype))
        centred = given - given.mean(-1, keepdim=True)
        variance = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
        equal = variance == 0
        deviation = torch.sqrt(variance.masked_fill(equal, 1)).masked_fill(equal, 0)
        normal = (centred / (deviation + self.epsilon)).to(x.dtype)
        return normal * self.weight + self.bias


Norm = nn.LayerNorm | nn.RMSNorm | StdNorm


def layer_norm(config: TransformerConfig) -> Norm:
    """The config's norm with its epsilon, never a framework's default.

    LayerNorm (Ba et al. 2016), RMSNorm (Zhang and Sennrich 2019), or one by the deviation.
    """
    if config.norm == "rms":
        return nn.RMSNorm(config.hidden_dim, eps=config.norm_epsilon)
    if config.norm == "std":
        return StdNorm(config.hidden_dim, config.norm_epsilon)
    return nn.LayerNorm(config.hidden_dim, eps=config.norm_epsilon)


def padding_mask(real: Bool[Tensor, "B K"]) -> Bool[Tensor, "B 1 1 K"]:
    """Every query sees the real tokens only."""
    return never_empty(real[:, None, None, :])


def never_empty(mask: Bool[Tensor, "B 1 Q K"]) -> Bool[Tensor, "B 1 Q K"]:
    """Let a query that may see nothing see everything: its output and gradient stay finite."""
    return mask | ~mask.any(-1, keepdim=True)


def look_ahead_mask(Q: int, K: int, device: torch.device | None = None) -> Bool[Tensor, "1 1 Q K"]:
    """Query row i sees keys up to K-Q+i: aligned bottom-right, so that Q new rows end at key K."""
    rows = torch.arange(Q, device=device)[:, None] + (K - Q)
    return (torch.arange(K, device=device)[None, :] <= rows)[None, None]


def attention(
    q: Float[Tensor, "B H Q A"],
    k: Float[Tensor, "B H K A"],
    v: Float[Tensor, "B H K A"],
    mask: Bool[Tensor, "#B 1 #Q K"],
    config: TransformerConfig,
    dropout: Dropout | None,
    bias: Float[Tensor, "1 H Q K"] | None = None,
) -> Float[Tensor, "B H Q A"]:
    """Scaled dot-product attention (section 3.2.1); every query sees at least one key.

    A ``bias`` is added to the scores.
    """
    plain = dropout is None or config.attention_dropout == 0
    if plain and bias is None and config.feature_dim and products.many(q, mask):
        return products.attention(q, k, v, mask, config.attention_scale)
    if plain and not slow_if_fused(q, bias):
        added = mask if bias is None else masked(bias, mask)
        return F.scaled_dot_product_attention(q, k, v, added, scale=config.attention_scale)
    weights = probabilities(q, k, mask, config.attention_scale, bias)
    return weighted(drop(weights, config.attention_dropout, dropout), v)


def probabilities(
    q: Float[Tensor, "B H Q A"],
    k: Float[Tensor, "B H K A"],
    mask: Bool[Tensor, "#B 1 #Q K"],
    scale: float,
    bias: Float[Tensor, "1 H Q K"] | None = None,
) -> Float[Tensor, "B H Q K"]:
    """How much each query takes of each key's value, in the number format of sums."""
    scores = torch.einsum("bhqa,bhka->bhqk", q * scale, k).to(wide(q.dtype))
    scores = scores if bias is None else scores + bias
    return torch.softmax(masked(scores, mask), -1)


def masked(
    scores: Float[Tensor, "#B H Q K"], mask: Bool[Tensor, "#B 1 #Q K"]
) -> Float[Tensor, "#B H Q K"]:
    """Scores of which those that may not be seen weigh nothing."""
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def weighted(
    probabilities: Float[Tensor, "B H Q K"], v: Float[Tensor, "B H K A"]
) -> Float[Tensor, "B H Q A"]:
    """The values that each query takes, summed."""
    return torch.einsum("bhqk,bhka->bhqa", probabilities.to(v.dtype), v)


def slow_if_fused(q: Tensor, bias: Tensor | None) -> bool:
    """Whether the gradient takes longer where PyTorch's own attention computes it.

    On processors the fused bfloat16 attention's makes a step 2 to 6 times as long, and with a bias
    that learns it is not fused.
    """
    slow = q.dtype == torch.bfloat16 or (bias is not None and bias.requires_grad)
    return slow and q.requires_grad and q.device.type == "cpu"


def relative_table(config: TransformerConfig) -> nn.Embedding:
    """A table (R, H) of relative positions; its numbers are given."""
    rows, heads = config.relative_buckets, config.num_heads
    return nn.Embedding.from_pretrained(torch.empty(rows, heads), freeze=False)


class KeyValueCache:
    """One layer's keys and values of the tokens decoded so far, in arrays of fixed length."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        self.keys, self.values, self.length = keys, values, length

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Write Q new columns after the first ``length`` and return those in use."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]


class MultiHeadAttention(nn.Module):
    """Multi-head attention (section 3.2.2); heads are split by reshape.

    Self-attention of a half with relative ``positions`` may have a table of its own.
    """

    def __init__(self, config: TransformerConfig, positions: str = "none") -> None:
        super().__init__()
        D, heads = config.hidden_dim, config.heads_dim
        self.config = config
        self.fcQ = Linear(D, heads, config.attention_bias)
        self.fcK = Linear(D, heads, config.key_bias)
        self.fcV = Linear(D, heads, config.attention_bias)
        self.fcOut = Linear(heads, D, config.attention_output_bias)
        own_table = config.relative_per_layer and positions == RELATIVE
        self.relative_bias = relative_table(config) if own_table else None

    def split_heads(self, x: Float[Tensor, "B K X"]) -> Float[Tensor, "B H K A"]:
        B, K, _ = x.shape
        return x.reshape(B, K, self.config.num_heads, self.config.head_dim).transpose(1, 2)

    def keys_values(self, memory: Float[Tensor, "B K D"]) -> KeysValues:
        return self.split_heads(self.fcK(memory)), self.split_heads(self.fcV(memory))

    def forward(
        self,
        x: Float[Tensor, "B Q D"],
        keys_values: KeysValues,
        mask: Bool[Tensor, "#B 1 #Q K"],
        dropout: Dropout | None = None,
        bias: Bias = None,
    ) -> Float[Tensor, "B Q D"]:
        q = self.split_heads(self.fcQ(x))  # (B, Q, D) -> (B, H, Q, A)
        context = attention(q, *keys_values, mask, self.config, dropout, self.added(bias))
        heads = context.transpose(1, 2).reshape(*x.shape[:2], -1)  # (B, H, Q, A) -> (B, Q, H x A)
        return self.fcOut(heads)

    def added(self, bias: Bias) -> Float[Tensor, "1 H Q K"] | None:
        """What is added to scores; this attention's own table says it of distances."""
        if not isinstance(bias, Distances):
            return bias
        assert self.relative_bias is not None
        return relative_bias(self.relative_bias.weight, bias)


class FeedForward(nn.Module):
    """Position-wise feed-forward network (section 3.3), with a gate or without.

    Gated as in Shazeer 2020, "GLU Variants Improve Transformer".
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.fc1 = Linear(config.hidden_dim, config.inner_dim, config.ffn_bias)
        self.fc2 = Linear(config.inner_dim, config.hidden_dim, config.ffn_bias)
        gate = Linear(config.hidden_dim, config.inner_dim, config.ffn_bias)
        self.fc3 = gate if config.gated_ffn else None

    def forward(
        self, x: Float[Tensor, "B Q D"], dropout: Dropout | None = None
    ) -> Float[Tensor, "B Q D"]:
        h = ACTIVATIONS[self.config.activation](self.fc1(x))  # (B, Q, D) -> (B, Q, F)
        h = h if self.fc3 is None else h * self.fc3(x)
        return self.fc2(drop(h, self.config.activation_dropout, dropout))


class Layer(nn.Module):
    """What encoder and decoder layers share: a residual sum around every sub-layer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config

    def before(self, x: Float[Tensor, "B Q D"], norm: Norm) -> Float[Tensor, "B Q D"]:
        """What enters a sub-layer: norm(x) if the norm comes before it (section 3.1)."""
        return norm(x) if self.config.norm_position == "pre" else x

    def after(
        self,
        x: Float[Tensor, "B Q D"],
        h: Float[Tensor, "B Q D"],
        norm: Norm,
        dropout: Dropout | None,
    ) -> Float[Tensor, "B Q D"]:
        """The sum of x and what the sub-layer made of it: norm(x + h) if the norm comes after."""
        if self.config.dropout_after_norm:
            return drop(norm(x + h), self.config.dropout, dropout)
        x = x + drop(h, self.config.dropout, dropout)
        return x if self.config.norm_position == "pre" else norm(x)


class EncoderLayer(Layer):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.multiheadattention = MultiHeadAttention(config, config.encoder_positions)
        self.layerNorm1 = layer_norm(config)
        self.ffn = FeedForward(config)
        self.layerNorm2 = layer_norm(config)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B 1 1 S"],
        dropout: Dropout | None = None,
        bias: Bias = None,
    ) -> Float[Tensor, "B S D"]:
        h = self.before(x, self.layerNorm1)
        keys_values = self.multiheadattention.keys_values(h)
        h = self.multiheadattention(h, keys_values, mask, dropout, bias)
        x = self.after(x, h, self.layerNorm1, dropout)
        h = self.ffn(self.before(x, self.layerNorm2), dropout)
        return self.after(x, h, self.layerNorm2, dropout)


class DecoderLayer(Layer):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.multiheadattention1 = MultiHeadAttention(config, config.decoder_positions)
        self.layerNorm1 = layer_norm(config)
        self.multiheadattention2 = MultiHeadAttention(config)
        self.layerNorm2 = layer_norm(config)
        self.ffn = FeedForward(config)
        self.layerNorm3 = layer_norm(config)

    def forward(
        self,
        x: Float[Tensor, "B Q D"],
        mask: Bool[Tensor, "B 1 Q K"],
        memory: Memory,
        memory_mask: Bool[Tensor, "N 1 1 S"],
        cache: KeyValueCache | None = None,
        dropout: Dropout | None = None,
        bias: Bias = None,
    ) -> Float[Tensor, "B Q D"]:
        h = self.attend_self(self.before(x, self.layerNorm1), mask, cache, dropout, bias)
        x = self.after(x, h, self.layerNorm1, dropout)
        h = self.attend_memory(self.before(x, self.layerNorm2), memory, memory_mask, dropout)
        x = self.after(x, h, self.layerNorm2, dropout)
        h = self.ffn(self.before(x, self.layerNorm3), dropout)
        return self.after(x, h, self.layerNorm3, dropout)

    def attend_self(
        self,
        h: Float[Tensor, "B Q D"],
        mask: Bool[Tensor, "B 1 Q K"],
        cache: KeyValueCache | None,
        dropout: Dropout | None,
        bias: Bias = None,
    ) -> Float[Tensor, "B Q D"]:
        keys_values = self.multiheadattention1.keys_values(h)
        keys_values = cache.append(*keys_values) if cache else keys_values
        return self.multiheadattention1(h, keys_values, mask, dropout, bias)

    def attend_memory(
        self,
        h: Float[Tensor, "B Q D"],
        memory: Memory,
        mask: Bool[Tensor, "N 1 1 S"],
        dropout: Dropout | None,
    ) -> Float[Tensor, "B Q D"]:
        # B rows over N sources: the B/N beams of one source are queries of the same memory.
        attention = self.multiheadattention2
        keys_values = memory if isinstance(memory, tuple) else attention.keys_values(memory)
        queries = h.reshape(keys_values[0].shape[0], -1, h.shape[-1])
        return attention(queries, keys_values, mask, dropout).reshape(h.shape)
