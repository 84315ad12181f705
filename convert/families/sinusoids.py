"""Sinusoid tables that lie in checkpoints although the config stands for them.

Modules keep theirs in a buffer, and ``state_dict()`` saves it. It is compared with the config's: a
library or module that reads it computes with what lies there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from convert.core.operations import Copy, RuleError
from convert.core.rules import Rule
from convert.core.tensors import Subset, Tensors
from convert.families.base import kept_aside
from transformer_spec import TransformerConfig, sinusoid_table

HALF = 4e-3  # bfloat16 rounds to 2e-3
REASON = "sinusoids, which the config stands for"
POSITIONS = re.compile(r"(^|[._])(pe|pos\w*|position\w*|sin\w*)([._]|$)", re.IGNORECASE)


class SinusoidCheck(Copy):
    """A stored sinusoid table, which must be the one that the config stands for.

    It may have axes of length 1 besides (positions, D).
    """

    label = "checked"
    compares = reversed_compares = True

    def __init__(self, config: TransformerConfig, advice: str = "") -> None:
        self.config = config
        self.advice = f"; {advice}" if advice else ""

    def forward(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        (array,) = arrays
        worst = self._worst(array)
        if not worst <= HALF:
            raise RuleError(
                f"not the sinusoids of this model; they differ by up to {worst:.3g}{self.advice}"
            )
        return arrays

    inverse = forward

    def _worst(self, array: np.ndarray) -> float:
        table = array.reshape(_matrix(array.shape))
        expected = stored_sinusoids(self.config, len(table))
        if table.shape != expected.shape:
            shape = list(array.shape)
            raise RuleError(f"shape {shape} is not {len(table)} positions of the model")
        return float(np.abs(table.astype(np.float32) - expected).max(initial=0))

    def doubt(self, array: np.ndarray) -> str:
        """What a table is, beyond rounding, that is near enough to be taken for sinusoids."""
        worst, rounding = self._worst(array), rounding_of(array)
        if worst <= rounding:
            return ""
        return (
            f"holds {array.dtype} numbers that differ from the sinusoids of this model by up to "
            f"{worst:.3g}, where rounding explains {rounding:.2g}: exact sinusoids take its place, "
            f"and what computes with the table is another function{self.advice}"
        )


def rounding_of(table: np.ndarray) -> float:
    """What numbers (rows, width) may be off by that are the sinusoids of some config.

    Angles in float32 are off by 1e-7 a row in the formulas that are in use, of which twice as much
    is allowed; a format of two bytes rounds the sines themselves.
    """
    if table.dtype.itemsize < 4:
        return HALF
    return min(HALF, 2e-6 + 2.5e-7 * _matrix(table.shape)[0])


def stored_sinusoids(config: TransformerConfig, rows: int) -> np.ndarray:
    """The first rows of the table that files hold, float32; padding has no position."""
    table = sinusoid_table(replace(config, max_length=max(rows, 1)))[:rows]
    if config.positions_skip_padding:
        table[config.pad_id : config.pad_id + 1] = 0
    return table


def sinusoid_rule(name: str, config: TransformerConfig, advice: str = "") -> Rule:
    """A stored table is checked and kept beside the weights."""
    return replace(kept_aside(name, REASON), operation=SinusoidCheck(config, advice))


def position_buffers(
    given: Tensors, taken: Collection[str], config: TransformerConfig
) -> list[str]:
    """What no rule has taken and what has name and shape of a table of positions."""
    left = [name for name in given if name not in taken and POSITIONS.search(name)]
    shapes = {name: _matrix(given[name].shape) for name in left}
    return [name for name, shape in shapes.items() if shape[1:] == (config.hidden_dim,)]


def dropped_tables(given: Tensors, names: Collection[str], config: TransformerConfig) -> list[str]:
    """A warning of each table among tensors that the user drops that the config does not stand for.

    A module that computes with what lies there is another function without it.
    """
    if "sinusoidal" not in (config.encoder_positions, config.decoder_positions):
        return []
    check, warnings = SinusoidCheck(config), list[str]()
    dropped = Subset(given, list(names))
    for name in position_buffers(dropped, (), config):
        try:
            check.forward(dropped.read(name))
        except RuleError as error:
            warnings.append(
                f"warning: {name} is left out by --drop, and is {error}: a module that reads it "
                "computes another function"
            )
    return warnings


def doubtful_tables(given: Tensors, rules: Iterable[Rule]) -> list[str]:
    """A warning of each stored table that rounding alone does not tell from the config's."""
    warnings = []
    for rule in rules:
        if isinstance(rule.operation, SinusoidCheck):
            (name,) = rule.sources
            doubt = rule.operation.doubt(given.read(name))
            warnings += [f"warning: {name} {doubt}"] if doubt else []
    return warnings


def _matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of length 1 beyond two."""
    while len(shape) > 2 and 1 in shape:
        at = shape.index(1)
        shape = (*shape[:at], *shape[at + 1 :])
    return shape
