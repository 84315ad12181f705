"""Which settings of a config its model computes with."""

from __future__ import annotations

from transformer_spec import RELATIVE, TransformerConfig

OF_SINUSOIDS = ("sinusoid_layout", "sinusoid_frequency")
OF_TABLES_AND_SINUSOIDS = ("position_offset", "positions_skip_padding")
OF_DISTANCES = ("relative_buckets", "relative_max_distance", "relative_per_layer")


def uses(config: TransformerConfig, name: str) -> bool:
    """Whether a model of this config reads its field ``name``.

    Settings of positions are read where a half has positions of that kind; all others always.
    """
    kinds = {config.encoder_positions, config.decoder_positions}
    if name in OF_SINUSOIDS:
        return "sinusoidal" in kinds
    if name in OF_TABLES_AND_SINUSOIDS:
        return bool(kinds - {RELATIVE, "none"})
    return name not in OF_DISTANCES or RELATIVE in kinds
