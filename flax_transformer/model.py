"""The Transformer in Flax NNX, line for line the twin of torch_transformer/model.py.

Letters: B batch, S source length, T target length, Q query length, K key length, D hidden_dim,
H num_heads, A head_dim, V vocabulary, W frames of a source of features, M feature_dim.
Real tokens are those that are not padding.
Sections are those of Vaswani et al. 2017, "Attention Is All You Need".
"""

from typing import cast

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from flax_transformer.cpu.products import project
from flax_transformer.dropout import Dropout, Given, drop, source_of
from flax_transformer.layers import (
    ACTIVATIONS,
    DecoderLayer,
    EncoderLayer,
    KeyValueCache,
    MemoryKeysValues,
    layer_norm,
    look_ahead_mask,
    never_empty,
    padding_mask,
    relative_table,
)
from flax_transformer.precision import full_precision
from flax_transformer.primitives import Convolution, Embed, Frozen, FrozenTable, empty, whole
from flax_transformer.recomputation import call
from flax_transformer.relative import Bias, distances, relative_bias
from flax_transformer.weights import NO_NUMBERS, initialise, set_dtype
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
Source = Int[Array, "B S"] | Float[Array, "B W M"]


def sinusoids(config: TransformerConfig, dtype: jnp.dtype) -> Array:
    """The sinusoid table in a model's own number format, never rounded twice."""
    table = sinusoid_table(config, np.float64 if dtype == jnp.float64 else np.float32)
    return jnp.asarray(table, dtype)


class Half(nnx.Module):
    """What encoder and decoder share: embeddings before the layers, a norm after them."""

    name: str

    def __init__(
        self, config: TransformerConfig, vocab_size: int, positions: str, own_table: bool
    ) -> None:
        D = config.hidden_dim
        self.config, self.positions, self.recomputes = config, positions, False
        self.embedding = Embed(vocab_size, D) if own_table else None
        table = Embed if positions in LEARNED else FrozenTable
        self.pos_embedding = (
            table(position_rows(config, self.name), D) if positions in STORED else None
        )
        shared = positions == RELATIVE and not config.relative_per_layer
        self.relative_bias = relative_table(config) if shared else None
        self.embedding_norm = layer_norm(config) if config.embedding_norm else None
        self.final_norm = layer_norm(config) if config.final_norm else None

    def embed(
        self,
        tokens: Int[Array, "B Q"],
        table: Float[Array, "V D"],
        position_ids: Int[Array, "#B Q"],
        dropout: Dropout | None,
        padding_gradient: bool = True,
    ) -> Float[Array, "B Q D"]:
        """Scaled embeddings (section 3.4) plus positions (section 3.5).

        Without a ``padding_gradient`` the padding token's row learns nothing from being looked up.
        """
        x = table[tokens]
        if not padding_gradient:
            padding = (tokens == self.config.pad_id)[..., None]
            x = jnp.where(padding, jax.lax.stop_gradient(x), x)
        x = x * self.config.embedding_scale
        return self.place(x, position_ids, dropout)

    def place(
        self, x: Float[Array, "B Q D"], position_ids: Int[Array, "#B Q"], dropout: Dropout | None
    ) -> Float[Array, "B Q D"]:
        """Positions and the norm of embeddings, on embeddings or what stands in their place."""
        after_norm = self.positions == "learned_after_norm"
        if self.positions == "sinusoidal":
            x = x + sinusoids(self.config, x.dtype)[position_ids]
        elif self.pos_embedding is not None and not after_norm:
            x = x + whole(self.pos_embedding.embedding)[position_ids]
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        if self.pos_embedding is not None and after_norm:
            x = x + whole(self.pos_embedding.embedding)[position_ids]
        return drop(x, self.config.dropout, dropout)

    def bias(
        self, x: Float[Array, "B Q D"], first: int | Int[Array, ""], keys: int, cells: int
    ) -> Bias:
        """What self-attention adds to the scores of states from column ``first`` on and of keys.

        A column has so many ``cells``. Where layers have tables of their own, it is what they need
        to make it.
        """
        if self.positions != RELATIVE:
            return None
        Q, K = x.shape[1] // cells, keys // cells
        found = distances(self.config, self.name, first, Q, K, cells)
        if self.relative_bias is None:
            return found
        return relative_bias(whole(self.relative_bias.embedding), found)

    def finish(self, x: Float[Array, "B Q D"], dropout: Dropout | None) -> Float[Array, "B Q D"]:
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
        self.enc_layers = nnx.List(layers)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        mask: Bool[Array, "B 1 1 S"],
        dropout: Dropout | None = None,
    ) -> Float[Array, "B S D"]:
        bias = self.bias(x, 0, x.shape[1], 1)
        for layer in self.enc_layers:
            x = call(layer, self.recomputes, dropout, x, mask, bias=bias)
        return self.finish(x, dropout)

    def embed_features(
        self,
        features: Float[Array, "B W M"],
        position_ids: Int[Array, "#B S"],
        dropout: Dropout | None,
    ) -> Float[Array, "B S D"]:
        """Two convolutions with the exact GELU, plus positions (Radford et al. 2022, section 2.2).

        Features are taken in the model's number format.
        """
        assert self.conv1 is not None and self.conv2 is not None
        gelu = ACTIVATIONS["gelu"]
        x = gelu(self.conv1(features.astype(self.conv1.kernel.dtype)))
        return self.place(gelu(self.conv2(x)), position_ids, dropout)


class OutputProjection(nnx.Module):
    """States to logits; a tied weight is passed in, a frozen bias is no parameter."""

    def __init__(self, config: TransformerConfig) -> None:
        V, D = config.target_vocab_size, config.hidden_dim
        own = config.tied_embeddings in ("none", "source_target")
        self.kernel = nnx.Param(empty(D, V)) if own else None
        if config.output_bias == "frozen":
            self.bias = Frozen(empty(V))
        else:
            trained = config.output_bias == "trained"
            self.bias = nnx.Param(empty(V)) if trained else None

    def __call__(
        self, states: Float[Array, "B Q D"], weight: Float[Array, "V D"]
    ) -> Float[Array, "B Q V"]:
        logits = project(states, weight)
        return logits if self.bias is None else logits + self.bias


class Decoder(Half):
    name = "decoder"

    def __init__(self, config: TransformerConfig) -> None:
        own_table = config.tied_embeddings in ("none", "target_output")
        super().__init__(config, config.target_vocab_size, config.decoder_positions, own_table)
        layers = [DecoderLayer(config) for _ in range(config.num_decoder_layers)]
        self.dec_layers = nnx.List(layers)
        self.finalFc = OutputProjection(config)

    def __call__(
        self,
        x: Float[Array, "B Q D"],
        mask: Bool[Array, "B 1 Q K"],
        memory: Float[Array, "N S D"] | list[MemoryKeysValues],
        memory_mask: Bool[Array, "N 1 1 S"],
        caches: list[KeyValueCache] | None = None,
        dropout: Dropout | None = None,
        columns: int | Int[Array, ""] = 0,
        cells: int = 1,
    ) -> Float[Array, "B Q D"]:
        """The states of new tokens, before which there were ``columns``, of so many ``cells``."""
        bias = self.bias(x, columns, mask.shape[3], cells)
        for i, layer in enumerate(self.dec_layers):
            cache = caches[i] if caches else None
            own = memory[i] if isinstance(memory, list) else memory
            x = call(layer, self.recomputes, dropout, x, mask, own, memory_mask, cache, bias=bias)
        return self.finish(x, dropout)


def check_tokens(tokens: Int[Array, "B K"], vocab_size: int, side: str) -> None:
    """A UserError for an id outside the vocabulary; what is traced has no ids yet."""
    check_array(tokens, side)
    if not isinstance(tokens, jax.core.Tracer):
        check_ids(np.asarray(tokens), vocab_size, side)


def check_array(tokens: Int[Array, "B K"], side: str) -> None:
    """A UserError for what is no array of token ids, which is known of what is traced too."""
    if not isinstance(tokens, Array | np.ndarray):
        raise no_array(tokens, side, "jax.Array")
    check_kind(tokens.shape, str(tokens.dtype), side)


class Transformer(nnx.Module):
    """The encoder-decoder of a config; starts from ``initial_weights(config, seed)``.

    The same config and weights give the same logits as the PyTorch twin. A model is made in
    evaluation mode; ``model.train()`` and ``model.eval()`` choose whether calls drop out.
    """

    def __init__(
        self, config: TransformerConfig, seed: int | None = 0, dtype: DTypeLike = jnp.float32
    ) -> None:
        """Without a seed, the model is a skeleton; under ``nnx.eval_shape`` nothing is drawn."""
        self.config, self.deterministic = config, True
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        set_dtype(self, dtype)
        if seed is not None:
            initialise(self, seed)

    def recompute_layers(self, wanted: bool = True) -> None:
        """Keep of each layer its input alone, and compute it again where gradients need the rest.

        Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
        """
        self.encoder.recomputes = self.decoder.recomputes = wanted

    @classmethod
    def skeleton(cls, config: TransformerConfig, dtype: DTypeLike = jnp.float32) -> "Transformer":
        """The model without numbers: abstract arrays.

        ``initialise(model, seed)``, ``load_weights`` and ``nnx.update`` give it its numbers.
        """
        return cls(config, None, dtype)

    @full_precision
    def __call__(
        self,
        source: Source,
        target: Int[Array, "B T"],
        dropout: Given = None,
    ) -> Float[Array, "B T V"]:
        """The logits of the token after each target token.

        ``source`` and ``target`` are token ids, filled up with ``pad_id`` on either side; the
        target begins with the decoder's start token. No token sees padding, and a target token
        sees none after it: the masks are made here. What stands at padding means nothing, and is
        finite. The softmax of logits over V is the model's distribution.

        With a ``feature_dim`` the source is features (B, W, M), of which every frame is seen, and
        has (W + 1) // 2 positions.

        ``dropout``: None drops out nothing, and is a UserError in training mode. A
        ``jax.random.key``, an ``nnx.Rngs`` or a ``Dropout(key)`` drops out in either mode; the
        masks of the last are the PyTorch twin's too.

        An id outside its vocabulary, more than ``max_length`` tokens or other numbers of rows are a
        UserError.
        """
        dropout = self.dropout_source(dropout)
        return self.decode(target, self.encode(source, dropout), source, dropout)

    @full_precision
    def encode(self, source: Source, dropout: Given = None) -> Float[Array, "B S D"]:
        """The encoder's output for each source token; arguments as those of the model itself."""
        self.check_numbers(source)
        self.check_source(source)
        return self.encoder_states(source, self.dropout_source(dropout))

    @full_precision
    def decode(
        self,
        target: Int[Array, "B T"],
        memory: Float[Array, "B S D"],
        source: Source,
        dropout: Given = None,
    ) -> Float[Array, "B T V"]:
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

    def check_numbers(self, tokens: Array) -> None:
        """A UserError where the model is a skeleton and the tokens are not."""
        table = self.decoder.embedding or self.encoder.embedding
        assert table is not None
        if isinstance(table.embedding.get_value(), jax.ShapeDtypeStruct):
            raise UserError(NO_NUMBERS)

    def check_source(self, source: Array) -> None:
        """A UserError for a source that is not what the model reads: ids, or features."""
        self.check_source_kind(source)
        if not self.config.feature_dim:
            check_tokens(source, self.config.source_vocab_size, "source")

    def check_source_kind(self, source: Array) -> None:
        """As ``check_source``, but ids are not looked at."""
        M = self.config.feature_dim
        if not M:
            return check_array(source, "source")
        if not isinstance(source, Array | np.ndarray):
            raise no_features(source, "jax.Array", M)
        check_features(source.shape, str(source.dtype), M)

    def dropout_source(self, dropout: Given) -> Dropout | None:
        """The given source of masks; in training mode there must be one."""
        if dropout is None and not self.deterministic and self.config.drops_out:
            raise UserError(
                "the model is in training mode and drops out, so each call needs a source of "
                "masks: dropout=jax.random.key(...), an nnx.Rngs or a flax_transformer.Dropout; "
                "after model.eval() it needs none and drops out nothing without one"
            )
        return source_of(dropout)

    @full_precision
    def encoder_states(
        self, source: Source, dropout: Dropout | None = None
    ) -> Float[Array, "B S D"]:
        """``encode`` in either mode: no dropout but the given, and ids are not looked at."""
        check_length(source_positions(source.shape, self.config), self.config, "encoder")
        real = self.real_source(source)
        ids = self.position_ids(real)
        if self.config.feature_dim:
            x = self.encoder.embed_features(source, ids, dropout)
        else:
            x = self.encoder.embed(source, self.source_table, ids, dropout)
        return self.encoder(x, padding_mask(real), dropout)

    @full_precision
    def decoder_states(
        self,
        target: Int[Array, "B T"],
        memory: Float[Array, "B S D"],
        source: Source,
        dropout: Dropout | None = None,
        padding_gradient: bool = True,
    ) -> Float[Array, "B T D"]:
        """What ``decode`` projects to logits, in either mode, as ``encoder_states``.

        A decoder that starts from the padding token looks it up: its row learns from that unless
        there is no ``padding_gradient``. The encoder's padding is seen by no token.
        """
        check_length(target.shape[1], self.config)
        real, T = self.real_target_tokens(target), target.shape[1]
        ids, table = self.position_ids(real), self.target_table
        x = self.decoder.embed(target, table, ids, dropout, padding_gradient)
        mask = never_empty(padding_mask(real) & look_ahead_mask(T, T))
        memory_mask = padding_mask(self.real_source(source))
        return self.decoder(x, mask, memory, memory_mask, None, dropout)

    @full_precision
    def memory(self, memory: Float[Array, "N S D"]) -> list[MemoryKeysValues]:
        """Each decoder layer's keys and values of the encoder's output, to be kept."""
        layers = cast(list[DecoderLayer], self.decoder.dec_layers)
        return [layer.multiheadattention2.keys_values(memory) for layer in layers]

    @full_precision
    def project(self, states: Float[Array, "B Q D"]) -> Float[Array, "B Q V"]:
        return self.decoder.finalFc(self.scaled(states), self.output_table)

    def scaled(self, states: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The decoder's states as they are projected."""
        scale = self.config.output_scale
        return states if scale == 1 else states * scale

    @property
    def source_table(self) -> Float[Array, "V D"]:
        assert self.encoder.embedding is not None
        return whole(self.encoder.embedding.embedding)

    @property
    def target_table(self) -> Float[Array, "V D"]:
        own = self.decoder.embedding
        return self.source_table if own is None else whole(own.embedding)

    @property
    def output_table(self) -> Float[Array, "V D"]:
        own = self.decoder.finalFc.kernel
        return self.target_table if own is None else whole(own).T

    def real_tokens(self, tokens: Int[Array, "B K"]) -> Bool[Array, "B K"]:
        return tokens != self.config.pad_id

    def as_source(self, source: np.ndarray) -> Source:
        """A source of NumPy as the model takes it."""
        conv1 = self.encoder.conv1
        return jnp.asarray(source, jnp.int32 if conv1 is None else conv1.kernel.dtype)

    def real_source(self, source: Source) -> Bool[Array, "B S"]:
        """As ``real_tokens``; no frame of features is padding."""
        if not self.config.feature_dim:
            return self.real_tokens(source)
        return jnp.ones((len(source), source_positions(source.shape, self.config)), bool)

    def real_target_tokens(
        self, target: Int[Array, "B T"], columns: int | Int[Array, ""] = 0
    ) -> Bool[Array, "B T"]:
        """As ``real_tokens``, but a decoder that starts from the padding token sees its start.

        ``columns`` tokens came before these.
        """
        real = self.real_tokens(target)
        if self.config.decoder_start_id != self.config.pad_id:
            return real
        return real | (columns + jnp.arange(target.shape[1]) == 0)

    def position_ids(
        self,
        real: Bool[Array, "B K"],
        past: Int[Array, "B 1"] | int = 0,
        columns: int | Int[Array, ""] = 0,
    ) -> Int[Array, "#B K"]:
        """Positions of K tokens after ``columns`` earlier ones, ``past`` of which are real."""
        if self.config.positions_skip_padding:
            counted = jnp.maximum(real.cumsum(1) - 1 + past, 0)
        else:
            counted = columns + jnp.arange(real.shape[1])[None, :]
        return counted + self.config.position_offset
