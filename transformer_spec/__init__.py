"""What the model is: config, positions, weight inventory and leaf names. NumPy and stdlib only."""

from transformer_spec.config import (
    DROPOUTS,
    FORMAT_VERSION,
    LEARNED,
    RELATIVE,
    STORED,
    TransformerConfig,
)
from transformer_spec.errors import ConfigError, Faults, UserError
from transformer_spec.ids import (
    check_features,
    check_ids,
    check_memory,
    check_rows,
    no_array,
    no_features,
)
from transformer_spec.inventory import (
    initial_weight,
    initial_weights,
    tied_weights,
    trained_names,
    weight_shapes,
)
from transformer_spec.leaves import canonical_name, flax_name, leaf_kind, to_flax, to_torch
from transformer_spec.positions import (
    check_length,
    position_rows,
    relative_buckets,
    sinusoid_table,
    source_positions,
)
from transformer_spec.strict import check_arrays, check_names

__all__ = [
    "DROPOUTS",
    "FORMAT_VERSION",
    "LEARNED",
    "RELATIVE",
    "STORED",
    "ConfigError",
    "Faults",
    "TransformerConfig",
    "UserError",
    "canonical_name",
    "check_arrays",
    "check_features",
    "check_names",
    "check_ids",
    "check_memory",
    "check_rows",
    "no_array",
    "no_features",
    "check_length",
    "flax_name",
    "initial_weight",
    "initial_weights",
    "leaf_kind",
    "position_rows",
    "relative_buckets",
    "sinusoid_table",
    "source_positions",
    "tied_weights",
    "to_flax",
    "to_torch",
    "trained_names",
    "weight_shapes",
]
