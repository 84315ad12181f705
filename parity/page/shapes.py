"""The shape of what each row of a report compares."""

from __future__ import annotations

from parity.comparison.memory import width_of
from parity.comparison.report import Report
from parity.comparison.text import EVERY_ROW, FEATURES, GRADIENT
from parity.forward.substeps import OVER_FRAMES, is_step, over_source
from training_recipe.sound.features import FRAMES
from transformer_spec import TransformerConfig, source_positions
from transformer_spec.inventory import all_weight_shapes

LEFT_OUT = " but row "
Shape = tuple[int, ...]


def shapes(report: Report) -> dict[str, Shape]:
    """By the name of a row: of a sub-step in the first batch, of a gradient, of a table.

    The loss is one number and has the shape ().
    """
    config = TransformerConfig.from_dict(dict(report.config))
    weights = all_weight_shapes(config)
    return {row.part: _shape(row.part, report, config, weights) for row in report.rows}


def _shape(part: str, report: Report, config: TransformerConfig, weights: dict) -> Shape:
    if is_step(part):
        return step_shape(part, report, config)
    if part.startswith(FEATURES):
        return FRAMES, config.feature_dim
    if part.startswith(EVERY_ROW):
        return weights[part.removeprefix(EVERY_ROW)]
    if part.startswith(GRADIENT):
        name, without, _ = part.removeprefix(GRADIENT).partition(LEFT_OUT)
        rows, *rest = weights[name]
        return rows - bool(without), *rest
    return ()


def step_shape(step: str, report: Report, config: TransformerConfig) -> Shape:
    """(B, S, D) of a sub-step over the source of the first batch, (B, T, D) over its target."""
    source, target = report.batches[0]
    if step in OVER_FRAMES:
        length = source[1]
    else:
        length = source_positions(source, config) if over_source(step) else target[1]
    return source[0], length, width_of(step, config)
