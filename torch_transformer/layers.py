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

from torch_transformer.dropout import Dropout, drop
from torch_transformer.precision import wide
from transformer_spec import TransformerConfig

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

    def reset_parameters(self) -> None:
        pass


def layer_norm(config: TransformerConfig) -> nn.LayerNorm:
    """LayerNorm (Ba et al. 2016) with the config's epsilon, never a framework's default."""
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
) -> Float[Tensor, "B H Q A"]:
    """Scaled dot-product attention (section 3.2.1); every query sees at least one key."""
    if (dropout is None or config.attention_dropout == 0) and not slow_if_fused(q):
        return F.scaled_dot_product_attention(q, k, v, mask, scale=config.attention_scale)
    weights = probabilities(q, k, mask, config.attention_scale)
    return weighted(drop(weights, config.attention_dropout, dropout), v)


def probabilities(
    q: Float[Tensor, "B H Q A"],
    k: Float[Tensor, "B H K A"],
    mask: Bool[Tensor, "#B 1 #Q K"],
    scale: float,
) -> Float[Tensor, "B H Q K"]:
    """How much each query takes of each key's value, in the number format of sums."""
    scores = torch.einsum("bhqa,bhka->bhqk", q * scale, k).to(wide(q.dtype))
    return torch.softmax(scores.masked_fill(~mask, torch.finfo(q.dtype).min), -1)


def weighted(
    probabilities: Float[Tensor, "B H Q K"], v: Float[Tensor, "B H K A"]
) -> Float[Tensor, "B H Q A"]:
    """The values that each query takes, summed."""
    return torch.einsum("bhqk,bhka->bhqa", probabilities.to(v.dtype), v)


def slow_if_fused(q: Tensor) -> bool:
    """On processors the fused bfloat16 attention's gradient takes a step 2 to 6 times as long."""
    return q.dtype == torch.bfloat16 and q.requires_grad and q.device.type == "cpu"


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
    """Multi-head attention (section 3.2.2); heads are split by reshape."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        D = config.hidden_dim
        self.config = config
        self.fcQ = Linear(D, D, config.attention_bias)
        self.fcK = Linear(D, D, config.attention_bias)
        self.fcV = Linear(D, D, config.attention_bias)
        self.fcOut = Linear(D, D, config.attention_bias)

    def split_heads(self, x: Float[Tensor, "B K D"]) -> Float[Tensor, "B H K A"]:
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
    ) -> Float[Tensor, "B Q D"]:
        q = self.split_heads(self.fcQ(x))  # (B, Q, D) -> (B, H, Q, A)
        context = attention(q, *keys_values, mask, self.config, dropout)
        return self.fcOut(context.transpose(1, 2).reshape(x.shape))  # (B, H, Q, A) -> (B, Q, D)


class FeedForward(nn.Module):
    """Position-wise feed-forward network (section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.fc1 = Linear(config.hidden_dim, config.inner_dim, config.ffn_bias)
        self.fc2 = Linear(config.inner_dim, config.hidden_dim, config.ffn_bias)

    def forward(
        self, x: Float[Tensor, "B Q D"], dropout: Dropout | None = None
    ) -> Float[Tensor, "B Q D"]:
        h = ACTIVATIONS[self.config.activation](self.fc1(x))  # (B, Q, D) -> (B, Q, F)
        return self.fc2(drop(h, self.config.activation_dropout, dropout))


class Layer(nn.Module):
    """What encoder and decoder layers share: a residual sum around every sub-layer."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config

    def before(self, x: Float[Tensor, "B Q D"], norm: nn.LayerNorm) -> Float[Tensor, "B Q D"]:
        """What enters a sub-layer: norm(x) if the norm comes before it (section 3.1)."""
        return norm(x) if self.config.norm_position == "pre" else x

    def after(
        self,
        x: Float[Tensor, "B Q D"],
        h: Float[Tensor, "B Q D"],
        norm: nn.LayerNorm,
        dropout: Dropout | None,
    ) -> Float[Tensor, "B Q D"]:
        """The sum of x and what the sub-layer made of it: norm(x + h) if the norm comes after."""
        x = x + drop(h, self.config.dropout, dropout)
        return x if self.config.norm_position == "pre" else norm(x)


class EncoderLayer(Layer):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.multiheadattention = MultiHeadAttention(config)
        self.layerNorm1 = layer_norm(config)
        self.ffn = FeedForward(config)
        self.layerNorm2 = layer_norm(config)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B 1 1 S"],
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B S D"]:
        h = self.before(x, self.layerNorm1)
        h = self.multiheadattention(h, self.multiheadattention.keys_values(h), mask, dropout)
        x = self.after(x, h, self.layerNorm1, dropout)
        h = self.ffn(self.before(x, self.layerNorm2), dropout)
        return self.after(x, h, self.layerNorm2, dropout)


class DecoderLayer(Layer):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.multiheadattention1 = MultiHeadAttention(config)
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
    ) -> Float[Tensor, "B Q D"]:
        h = self.attend_self(self.before(x, self.layerNorm1), mask, cache, dropout)
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
    ) -> Float[Tensor, "B Q D"]:
        keys_values = self.multiheadattention1.keys_values(h)
        keys_values = cache.append(*keys_values) if cache else keys_values
        return self.multiheadattention1(h, keys_values, mask, dropout)

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
