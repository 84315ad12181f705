"""The Transformer in PyTorch, line for line the twin of flax_transformer/model.py.

Letters: B batch, S source length, T target length, Q query length, K key length, D hidden_dim,
H num_heads, A head_dim, V vocabulary, W frames of a source of features, M feature_dim.
Real tokens are those that are not padding.
Sections are those of Vaswani et al. 2017, "Attention Is All You Need".
"""

import functools
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from torch_transformer.dropout import Dropout, NativeDropout, drop
from torch_transformer.layers import (
    ACTIVATIONS,
    Convolution,
    DecoderLayer,
    EncoderLayer,
    KeyValueCache,
    Linear,
    MemoryKeysValues,
    layer_norm,
    look_ahead_mask,
    never_empty,
    padding_mask,
    relative_table,
)
from torch_transformer.products import linear, watched
from torch_transformer.recomputation import call
from torch_transformer.relative import Bias, distances, relative_bias
from torch_transformer.weights import NO_NUMBERS, initialise
from transformer_spec import (
    LEARNED,
    RELATIVE,
    STORED,
    TransformerConfig,
    UserError,
    check_features,
    check_ids,
    check_length,
    check_memory,
    check_rows,
    no_array,
    no_features,
    position_rows,
    sinusoid_table,
    source_positions,
)
from transformer_spec.ids import check_kind

# Token ids, or frames of features.
Source = Int[Tensor, "B S"] | Float[Tensor, "B W M"]


def sinusoids(config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The sinusoid table in a model's own number format, never rounded twice."""
    # One that is made while operations are traced is of that trace alone.
    return (_sinusoids.__wrapped__ if watched() else _sinusoids)(config, dtype, device)


# torch.compiler.assume_constant_result, without its imports: for torch.compile and torch.export.
sinusoids._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@functools.lru_cache(maxsize=8)
def _sinusoids(config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> Tensor:
    table = sinusoid_table(config, np.float64 if dtype == torch.float64 else np.float32)
    return torch.as_tensor(table, dtype=dtype, device=device)


def embedding(rows: int, dim: int) -> nn.Embedding:
    """An Embedding whose values the model sets; torch's own first ones take seconds to import."""
    return nn.Embedding.from_pretrained(torch.empty(rows, dim), freeze=False)


class FrozenTable(nn.Module):
    """A table that is stored and never trained: no parameter."""

    weight: Tensor

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(rows, dim))


class Half(nn.Module):
    """What encoder and decoder share: embeddings before the layers, a norm after them."""

    name: str

    def __init__(
        self, config: TransformerConfig, vocab_size: int, positions: str, own_table: bool
    ) -> None:
        super().__init__()
        D = config.hidden_dim
        self.config, self.positions, self.recomputes = config, positions, False
        self.embedding = embedding(vocab_size, D) if own_table else None
        table = embedding if positions in LEARNED else FrozenTable
        self.pos_embedding = (
            table(position_rows(config, self.name), D) if positions in STORED else None
        )
        shared = positions == RELATIVE and not config.relative_per_layer
        self.relative_bias = relative_table(config) if shared else None
        self.embedding_norm = layer_norm(config) if config.embedding_norm else None
        self.final_norm = layer_norm(config) if config.final_norm else None

    def embed(
        self,
        tokens: Int[Tensor, "B Q"],
        table: Float[Tensor, "V D"],
        position_ids: Int[Tensor, "#B Q"],
        dropout: Dropout | None,
        padding_gradient: bool = True,
    ) -> Float[Tensor, "B Q D"]:
        """Scaled embeddings (section 3.4) plus positions (section 3.5).

        Without a ``padding_gradient`` the padding token's row learns nothing from being looked up.
        """
        frozen = None if padding_gradient else self.config.pad_id
        x = F.embedding(tokens, table, frozen) * self.config.embedding_scale
        return self.place(x, position_ids, dropout)

    def place(
        self, x: Float[Tensor, "B Q D"], position_ids: Int[Tensor, "#B Q"], dropout: Dropout | None
    ) -> Float[Tensor, "B Q D"]:
        """Positions and the norm of embeddings, on embeddings or what stands in their place."""
        after_norm = self.positions == "learned_after_norm"
        if self.positions == "sinusoidal":
            x = x + sinusoids(self.config, x.dtype, x.device)[position_ids]
        elif self.pos_embedding is not None and not after_norm:
            x = x + F.embedding(position_ids, self.pos_embedding.weight)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        if self.pos_embedding is not None and after_norm:
            x = x + F.embedding(position_ids, self.pos_embedding.weight)
        return drop(x, self.config.dropout, dropout)

    def bias(self, x: Float[Tensor, "B Q D"], first: int, keys: int, cells: int) -> Bias:
        """What self-attention adds to the scores of states from column ``first`` on and of keys.

        A column has so many ``cells``. Where layers have tables of their own, it is what they need
        to make it.
        """
        if self.positions != RELATIVE:
            return None
        Q, K = x.shape[1] // cells, keys // cells
        found = distances(self.config, self.name, first, Q, K, cells, x.device)
        if self.relative_bias is None:
            return found
        return relative_bias(self.relative_bias.weight, found)

    def finish(self, x: Float[Tensor, "B Q D"], dropout: Dropout | None) -> Float[Tensor, "B Q D"]:
        x = x if self.final_norm is None else self.final_norm(x)
        return drop(x, self.config.final_dropout, dropout)


class Encoder(Half):
    name = "encoder"

    def __init__(self, config: TransformerConfig) -> None:
        D, M = config.hidden_dim, config.feature_dim
        super().__init__(config, config.source_vocab_size, config.encoder_positions, not M)
        self.conv1 = Convolution(M, D, 1) if M else None
        self.conv2 = Convolution(D, D, 2) if M else None
        layers = [EncoderLayer(config) for _ in range(config.num_encoder_layers)]
        self.enc_layers = nn.ModuleList(layers)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B 1 1 S"],
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B S D"]:
        bias = self.bias(x, 0, x.shape[1], 1)
        for layer in self.enc_layers:
            x = call(layer, self.recomputes, dropout, x, mask, bias=bias)
        return self.finish(x, dropout)

    def embed_features(
        self,
        features: Float[Tensor, "B W M"],
        position_ids: Int[Tensor, "#B S"],
        dropout: Dropout | None,
    ) -> Float[Tensor, "B S D"]:
        """Two convolutions with the exact GELU, plus positions (Radford et al. 2022, section 2.2).

        Features are taken in the model's number format.
        """
        assert self.conv1 is not None and self.conv2 is not None
        gelu = ACTIVATIONS["gelu"]
        x = gelu(self.conv1(features.to(self.conv1.weight.dtype)))
        return self.place(gelu(self.conv2(x)), position_ids, dropout)


class OutputProjection(nn.Module):
    """States to logits; a tied weight is passed in, a frozen bias is no parameter."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        V, D = config.target_vocab_size, config.hidden_dim
        own = config.tied_embeddings in ("none", "source_target")
        self.quick = bool(config.feature_dim)
        self.weight = nn.Parameter(torch.empty(V, D)) if own else None
        if config.output_bias == "frozen":
            self.register_buffer("bias", torch.empty(V))
        else:
            trained = config.output_bias == "trained"
            self.bias = nn.Parameter(torch.empty(V)) if trained else None

    def forward(
        self, states: Float[Tensor, "B Q D"], weight: Float[Tensor, "V D"]
    ) -> Float[Tensor, "B Q V"]:
        return linear(states, weight, self.bias, self.quick)


class Decoder(Half):
    name = "decoder"

    def __init__(self, config: TransformerConfig) -> None:
        own_table = config.tied_embeddings in ("none", "target_output")
        super().__init__(config, config.target_vocab_size, config.decoder_positions, own_table)
        layers = [DecoderLayer(config) for _ in range(config.num_decoder_layers)]
        self.dec_layers = nn.ModuleList(layers)
        self.finalFc = OutputProjection(config)

    def forward(
        self,
        x: Float[Tensor, "B Q D"],
        mask: Bool[Tensor, "B 1 Q K"],
        memory: Float[Tensor, "N S D"] | list[MemoryKeysValues],
        memory_mask: Bool[Tensor, "N 1 1 S"],
        caches: list[KeyValueCache] | None = None,
        dropout: Dropout | None = None,
        columns: int = 0,
        cells: int = 1,
    ) -> Float[Tensor, "B Q D"]:
        """The states of new tokens, before which there were ``columns``, of so many ``cells``."""
        bias = self.bias(x, columns, mask.shape[3], cells)
        for i, layer in enumerate(self.dec_layers):
            cache = caches[i] if caches else None
            own = memory[i] if isinstance(memory, list) else memory
            x = call(layer, self.recomputes, dropout, x, mask, own, memory_mask, cache, bias=bias)
        return self.finish(x, dropout)


def check_tokens(tokens: Int[Tensor, "B K"], vocab_size: int, side: str) -> None:
    """A UserError for an id outside the vocabulary; what is traced has no ids yet."""
    check_array(tokens, side)
    if tokens.is_meta or torch.compiler.is_compiling() or watched():
        return
    check_ids(tokens.cpu().numpy(), vocab_size, side)


def check_array(tokens: Int[Tensor, "B K"], side: str) -> None:
    """A UserError for what is no tensor of token ids, which is known of what is traced too."""
    if not isinstance(tokens, Tensor):
        raise no_array(tokens, side, "torch.Tensor")
    check_kind(tuple(tokens.shape), str(tokens.dtype), side)
    if tokens.dtype not in (torch.int32, torch.int64):
        raise UserError(f"{side} token ids are {tokens.dtype}; give torch.int64 or torch.int32")


class Transformer(nn.Module):
    """The encoder-decoder of a config; starts from ``initial_weights(config, seed)``.

    The same config and weights give the same logits as the Flax twin. A model is made in
    evaluation mode; ``model.train()`` and ``model.eval()`` choose whether calls drop out.
    """

    def __init__(
        self, config: TransformerConfig, seed: int | None = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        """Without a seed, or under ``torch.device("meta")``, the model is a skeleton."""
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.encoder = Encoder(config)
            self.decoder = Decoder(config)
        for module in self.modules() if config.feature_dim else ():
            if isinstance(module, Linear):
                module.quick = True
        self.to(dtype).eval()
        if seed is not None and torch.get_default_device().type != "meta":
            initialise(self, seed)

    def recompute_layers(self, wanted: bool = True) -> None:
        """Keep of each layer its input alone, and compute it again where gradients need the rest.

        Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
        """
        self.encoder.recomputes = self.decoder.recomputes = wanted

    @classmethod
    def skeleton(
        cls, config: TransformerConfig, dtype: torch.dtype = torch.float32
    ) -> "Transformer":
        """The model without numbers: meta tensors.

        ``initialise(model, seed)``, ``load_weights`` and ``load_state_dict(..., assign=True)``
        give it its numbers.
        """
        return cls(config, None, dtype)

    def forward(
        self,
        source: Source,
        target: Int[Tensor, "B T"],
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B T V"]:
        """The logits of the token after each target token.

        ``source`` and ``target`` are token ids, filled up with ``pad_id`` on either side; the
        target begins with the decoder's start token. No token sees padding, and a target token
        sees none after it: the masks are made here. What stands at padding means nothing, and is
        finite. The softmax of logits over V is the model's distribution.

        With a ``feature_dim`` the source is features (B, W, M), of which every frame is seen, and
        has (W + 1) // 2 positions.

        ``dropout``: None drops out nothing or, in training mode, what PyTorch's own generator
        says. A ``Dropout(key)`` drops out in either mode; its masks are the Flax twin's too.

        An id outside its vocabulary, more than ``max_length`` tokens or other numbers of rows are a
        UserError.
        """
        dropout = self.dropout_source(dropout)
        return self.decode(target, self.encode(source, dropout), source, dropout)

    def encode(self, source: Source, dropout: Dropout | None = None) -> Float[Tensor, "B S D"]:
        """The encoder's output for each source token; arguments as those of the model itself."""
        self.check_numbers(source)
        self.check_source(source)
        return self.encoder_states(source, self.dropout_source(dropout))

    def decode(
        self,
        target: Int[Tensor, "B T"],
        memory: Float[Tensor, "B S D"],
        source: Source,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B T V"]:
        """The logits of the token after each target token, given what ``encode`` gave.

        ``source`` says which of the memory is padding; the rest is as for the model itself.
        """
        self.check_numbers(target)
        check_tokens(target, self.config.target_vocab_size, "target")
        self.check_source_kind(source)
        check_rows(target=target.shape[0], memory=memory.shape[0], source=source.shape[0])
        check_memory(memory.shape, source_positions(source.shape, self.config), source.shape)
        return self.project(
            self.decoder_states(target, memory, source, self.dropout_source(dropout))
        )

    def check_numbers(self, tokens: Tensor) -> None:
        """A UserError where the model is a skeleton and the tokens are not."""
        table = self.decoder.embedding or self.encoder.embedding
        assert table is not None
        if table.weight.is_meta and not tokens.is_meta:
            raise UserError(NO_NUMBERS)

    def check_source(self, source: Tensor) -> None:
        """A UserError for a source that is not what the model reads: ids, or features."""
        self.check_source_kind(source)
        if not self.config.feature_dim:
            check_tokens(source, self.config.source_vocab_size, "source")

    def check_source_kind(self, source: Tensor) -> None:
        """As ``check_source``, but ids are not looked at."""
        M = self.config.feature_dim
        if not M:
            return check_array(source, "source")
        if not isinstance(source, Tensor):
            raise no_features(source, "torch.Tensor", M)
        check_features(tuple(source.shape), str(source.dtype), M)

    def dropout_source(self, dropout: Dropout | None) -> Dropout | None:
        """The given source of masks or, in training mode, PyTorch's own generator."""
        if not (dropout is None or isinstance(dropout, Dropout)):
            given = type(dropout).__name__
            raise UserError(f"dropout is a {given}; give a torch_transformer.Dropout")
        return NativeDropout() if dropout is None and self.training else dropout

    def encoder_states(
        self, source: Source, dropout: Dropout | None = None
    ) -> Float[Tensor, "B S D"]:
        """``encode`` in either mode: no dropout but the given, and ids are not looked at."""
        check_length(source_positions(source.shape, self.config), self.config, "encoder")
        real = self.real_source(source)
        ids = self.position_ids(real)
        if self.config.feature_dim:
            x = self.encoder.embed_features(source, ids, dropout)
        else:
            x = self.encoder.embed(source, self.source_table, ids, dropout)
        return self.encoder(x, padding_mask(real), dropout)

    def decoder_states(
        self,
        target: Int[Tensor, "B T"],
        memory: Float[Tensor, "B S D"],
        source: Source,
        dropout: Dropout | None = None,
        padding_gradient: bool = True,
    ) -> Float[Tensor, "B T D"]:
        """What ``decode`` projects to logits, in either mode, as ``encoder_states``.

        A decoder that starts from the padding token looks it up: its row learns from that unless
        there is no ``padding_gradient``. The encoder's padding is seen by no token.
        """
        check_length(target.shape[1], self.config)
        real, T = self.real_target_tokens(target), target.shape[1]
        ids, table = self.position_ids(real), self.target_table
        x = self.decoder.embed(target, table, ids, dropout, padding_gradient)
        mask = never_empty(padding_mask(real) & look_ahead_mask(T, T, target.device))
        memory_mask = padding_mask(self.real_source(source))
        return self.decoder(x, mask, memory, memory_mask, None, dropout)

    def memory(self, memory: Float[Tensor, "N S D"]) -> list[MemoryKeysValues]:
        """Each decoder layer's keys and values of the encoder's output, to be kept."""
        layers = cast(list[DecoderLayer], self.decoder.dec_layers)
        return [layer.multiheadattention2.keys_values(memory) for layer in layers]

    def project(self, states: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q V"]:
        return self.decoder.finalFc(self.scaled(states), self.output_table)

    def scaled(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The decoder's states as they are projected."""
        scale = self.config.output_scale
        return states if scale == 1 else states * scale

    @property
    def source_table(self) -> Float[Tensor, "V D"]:
        assert self.encoder.embedding is not None
        return self.encoder.embedding.weight

    @property
    def target_table(self) -> Float[Tensor, "V D"]:
        own = self.decoder.embedding
        return self.source_table if own is None else own.weight

    @property
    def output_table(self) -> Float[Tensor, "V D"]:
        own = self.decoder.finalFc.weight
        return self.target_table if own is None else own

    def real_tokens(self, tokens: Int[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
        return tokens != self.config.pad_id

    def as_source(self, source: np.ndarray) -> Source:
        """A source of NumPy as the model takes it, on its device."""
        table, features = self.target_table, bool(self.config.feature_dim)
        return torch.as_tensor(source).to(table.device, table.dtype if features else torch.int64)

    def real_source(self, source: Source) -> Bool[Tensor, "B S"]:
        """As ``real_tokens``; no frame of features is padding."""
        if not self.config.feature_dim:
            return self.real_tokens(source)
        positions = source_positions(tuple(source.shape), self.config)
        return torch.ones(source.shape[0], positions, dtype=torch.bool, device=source.device)

    def real_target_tokens(
        self, target: Int[Tensor, "B T"], columns: int = 0
    ) -> Bool[Tensor, "B T"]:
        """As ``real_tokens``, but a decoder that starts from the padding token sees its start.

        ``columns`` tokens came before these.
        """
        real = self.real_tokens(target)
        if self.config.decoder_start_id != self.config.pad_id:
            return real
        return real | (columns + torch.arange(target.shape[1], device=target.device) == 0)

    def position_ids(
        self, real: Bool[Tensor, "B K"], past: Int[Tensor, "B 1"] | int = 0, columns: int = 0
    ) -> Int[Tensor, "#B K"]:
        """Positions of K tokens after ``columns`` earlier ones, ``past`` of which are real."""
        if self.config.positions_skip_padding:
            counted = (real.cumsum(1) - 1 + past).clamp(min=0)
        else:
            counted = columns + torch.arange(real.shape[1], device=real.device)[None, :]
        return counted + self.config.position_offset
