"""The list of planted bugs: what conversions and re-implementations get wrong.

A mutation turns a correct subject into wrong ones (``variants``), and a wrong one into a correct
one where the same slip is undone by the same change. ``explain`` tries them all; the tests plant
them all; docs/parity.md shows what each of them does to the numbers.
"""

from __future__ import annotations

import math

from parity.forward.used_settings import uses
from parity.mutations.convolutions import (
    AT_END,
    EARLIER,
    IN_FRONT,
    LATER,
    STRIDES,
    TURNED,
    features_patch,
    gelu_after_convolutions,
    kernels_flipped,
    kernels_transposed,
    key_biases,
    positions_by_formula,
)
from parity.mutations.relative import (
    AFTER,
    BEFORE,
    FROM_ZERO,
    ON_MEMORY,
    OTHER_HALF,
    SIGN,
    decoder_patch,
    max_distances,
    moved_buckets,
    relative_patch,
    table_layers,
    table_layouts,
)
from parity.mutations.structure import (
    embedding_norms,
    final_norms,
    float32_sinusoids,
    no_positions,
    norm_before_positions,
    norm_position,
    other_norm,
    position_offsets,
    rounded,
    tie_broken,
)
from parity.mutations.subjects import Mutation, field_mutation, patch_mutation
from parity.mutations.weights import (
    all_not_transposed,
    exchange,
    exchanged_attentions,
    exchanged_norms,
    exchanged_tables,
    gate_exchanged,
    layer_order,
    moved_rows,
    norm_leaves_exchanged,
    norm_weights_from_one,
    not_transposed,
    other_head_order,
    other_heads,
    without_bias,
)

MUTATIONS = (
    field_mutation("norm_epsilon", "LayerNorm epsilon", 1e-5, 1e-6, 1e-12, 1e-8, 1e-3),
    field_mutation(
        "activation", "activation", "gelu_tanh", "gelu", "relu", "gelu_sigmoid", "silu", "identity"
    ),
    field_mutation(
        "attention_scale", "attention scale", lambda c: 1 / math.sqrt(c.head_dim), 1.0,
        lambda c: c.hidden_dim**-0.5, lambda c: 1 / c.head_dim,
    ),
    field_mutation("embedding_scale", "embedding scale", lambda c: c.hidden_dim**0.5, 1.0),
    field_mutation("sinusoid_layout", "sinusoid layout", "interleaved", "concatenated"),
    field_mutation("sinusoid_frequency", "sinusoid frequency", "2i/d", "i/(d/2-1)"),
    field_mutation("positions_skip_padding", "positions over padding", False, True),
    field_mutation(
        "pad_id", "padding id", 0, 1, lambda c: (c.source_vocab_size or c.target_vocab_size) - 1,
        lambda c: c.eos_id,
    ),
    Mutation("position offset", position_offsets),
    Mutation("positions", no_positions, one_way=True),
    Mutation("embedding norm before positions", norm_before_positions),
    Mutation("norm position", norm_position),
    Mutation("final norm", final_norms, one_way=True),
    Mutation("embedding norm", embedding_norms, one_way=True),
    Mutation("tie", tie_broken, one_way=True),
    exchange("fcQ", "fcK"),
    exchange("fcK", "fcV"),
    exchange("fcQ", "fcV"),
    not_transposed("fcQ"),
    not_transposed("fcK"),
    not_transposed("fcV"),
    not_transposed("fcOut"),
    Mutation("square matrices not transposed", all_not_transposed),
    Mutation("head order", other_head_order),
    without_bias(("fcQ.bias", "fcK.bias", "fcV.bias", "fcOut.bias"), "attention biases missing"),
    without_bias(("fc1.bias", "fc2.bias", "fc3.bias"), "feed-forward biases missing"),
    without_bias(("finalFc.bias",), "output bias missing"),
    Mutation("LayerNorms exchanged", exchanged_norms),
    Mutation("LayerNorm weight and bias exchanged", norm_leaves_exchanged),
    Mutation("self and cross attention exchanged", exchanged_attentions),
    Mutation("order of layers", layer_order, one_way=True),
    Mutation("rows of a table", moved_rows, one_way=True),
    Mutation("source and target embeddings exchanged", exchanged_tables),
    Mutation("weights rounded", rounded, one_way=True),
    Mutation("sinusoid table", float32_sinusoids, one_way=True),
    patch_mutation("mask inverted", "padding mask inverted", "padding seen, tokens not"),
    patch_mutation("no padding mask", "padding mask missing", "padding is seen"),
    patch_mutation("no look-ahead mask", "look-ahead mask missing", "later tokens are seen"),
    patch_mutation("look-ahead one off", "look-ahead mask one off", "the next token is seen"),
    patch_mutation(
        "unbiased variance", "LayerNorm variance", "divided by D-1", lambda c: c.norm == "layer"
    ),
    patch_mutation(
        "biased deviation", "standard deviation", "divided by D", lambda c: c.norm == "std"
    ),
    patch_mutation(
        "epsilon in the variance", "place of the epsilon", "under the root",
        lambda c: c.norm == "std",
    ),
    patch_mutation("residual after norm", "residual", "taken after the norm"),
    patch_mutation(
        "scale after positions", "place of the scale", "after the positions",
        lambda c: c.embedding_scale != 1 and uses(c, "position_offset"),
    ),
    Mutation("kind of norm", other_norm, one_way=True),
    Mutation("norm weights", norm_weights_from_one),
    Mutation("fc1 and fc3 exchanged", gate_exchanged),
    field_mutation(
        "output_scale", "output scale", lambda c: c.hidden_dim**-0.5, 1.0,
        lambda c: c.hidden_dim**0.5,
    ),
    Mutation("rows of relative positions", moved_buckets, one_way=True),
    Mutation("layout of relative positions", table_layouts),
    Mutation("layers with relative positions", table_layers, one_way=True),
    Mutation("largest distance", max_distances, "relative_max_distance"),
    relative_patch("direction of relative positions", OTHER_HALF),
    relative_patch("sign of distances", SIGN),
    relative_patch("distances one off", AFTER, BEFORE),
    decoder_patch("columns of queries", FROM_ZERO),
    decoder_patch("relative positions on the source", ON_MEMORY),
    Mutation("stored positions", positions_by_formula, one_way=True),
    Mutation("GELU after the convolutions", gelu_after_convolutions),
    features_patch("padding of the convolutions", AT_END, IN_FRONT),
    features_patch("strides of the convolutions", STRIDES),
    Mutation("kernels of convolutions flipped", kernels_flipped),
    Mutation("kernels of convolutions not transposed", kernels_transposed),
    features_patch("layout of features", TURNED),
    features_patch("frames one off", LATER, EARLIER),
    Mutation("number of heads", other_heads),
)  # fmt: skip
# What moves a sub-step and no logits.
UNSEEN = (Mutation("bias of fcK", key_biases, one_way=True),)
