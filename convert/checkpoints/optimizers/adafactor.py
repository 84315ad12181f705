"""The state of Adafactor of torch.optim as that of optax, and back, for the weights of our twins.

Both keep running means of squared gradients, of a matrix along its rows and its columns: torch of
every matrix, optax of those whose smaller side is at least ``min_dim_size_to_factor``. optax calls
``v_row`` the mean over the longer side, torch ``row_var`` the mean over the last axis. The numbers
are the same, and training goes on alike with torch's ``eps=(1e-30, 1e-3)``, no weight decay and a
learning rate below ``1 / sqrt(step)``; torch has no momentum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from transformer_spec import Faults, canonical_name, flax_name, to_flax

ROW, COLUMN, WHOLE, STEP = "row_var", "col_var", "variance", "step"  # of torch
FACTORED = 128  # what optax.adafactor has for min_dim_size_to_factor unless told otherwise
Arrays = Mapping[str, np.ndarray]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class OptaxAdafactor:
    """An ``optax.FactoredState`` whose trees are dicts by the names of the Flax twin's weights.

    Slots that are not used hold one zero.
    """

    count: int
    v_row: dict[str, np.ndarray] = field(default_factory=dict)
    v_col: dict[str, np.ndarray] = field(default_factory=dict)
    v: dict[str, np.ndarray] = field(default_factory=dict)


def adafactor_to_torch(
    state: OptaxAdafactor, shapes: Mapping[str, Shape]
) -> dict[str, dict[str, np.ndarray]]:
    """Entries of ``torch.optim.Adafactor``'s state by the names of the PyTorch twin's weights.

    ``shapes`` are those of the Flax twin's weights, each with a state. What torch would keep
    otherwise is named in one UserError.
    """
    faults, entries = Faults(), dict[str, dict[str, np.ndarray]]()
    for name in state.v.keys() ^ shapes.keys():
        faults.add(f"{name!r} has a state or a shape, and not both", "have no state, or no shape")
    for name, shape in shapes.items():
        if name not in state.v:
            continue
        factored = len(shape) > 1
        if factored != (state.v_row[name].shape != (1,)) or len(shape) > 2:
            faults.add(f"{name!r}: {_kept(shape)}", "are kept otherwise by torch")
            continue
        means = _means(state, name, shape) if factored else {WHOLE: state.v[name]}
        step = np.array(state.count, np.float32)
        entries[canonical_name(name)] = {STEP: step, **{k: np.array(x) for k, x in means.items()}}
    faults.raise_if_any("this state of optax.adafactor cannot become torch's")
    return entries


def adafactor_to_optax(
    entries: Mapping[str, Arrays], min_dim_size_to_factor: int = FACTORED
) -> OptaxAdafactor:
    """The state of ``optax.adafactor`` from entries of torch's by the PyTorch twin's names.

    What optax would keep otherwise, and parameters with other numbers of steps than others, are
    named in one UserError.
    """
    faults, steps = Faults(), {int(entry[STEP]) for entry in entries.values()}
    faults.require(len(steps) <= 1, f"parameters have made different steps: {sorted(steps)}")
    state = OptaxAdafactor(max(steps, default=0))
    for name, entry in entries.items():
        theirs, unused = flax_name(name), np.zeros(1, np.float32)
        slots = {"v": entry.get(WHOLE, unused), "v_row": unused, "v_col": unused}
        if WHOLE not in entry:
            shape = _shape(name, entry)
            if min(shape) < min_dim_size_to_factor:
                faults.add(
                    f"{theirs!r} {list(shape)} has a side below {min_dim_size_to_factor}, and "
                    "optax keeps all its numbers",
                    "are kept otherwise by optax",
                )
                continue
            slots |= _slots(name, entry, shape)
        for slot, array in slots.items():
            getattr(state, slot)[theirs] = np.array(array)
    faults.raise_if_any("this state of torch.optim.Adafactor cannot become that of optax.adafactor")
    return state


def _kept(shape: Shape) -> str:
    if len(shape) > 2:
        return f"an array of {len(shape)} axes"
    return f"optax keeps all numbers of its {list(shape)} squares, and torch means along both axes"


def _sides(shape: Shape) -> tuple[int, int]:
    """The axes along which ``v_row`` and ``v_col`` of a matrix lie: the shorter, the longer one."""
    shorter, longer = np.argsort(shape)
    return int(shorter), int(longer)


def _is_transposed(name: str) -> bool:
    """Whether the Flax twin's weight of a canonical name is the transposed one."""
    probe = np.empty((1, 2))
    return to_flax(name, probe)[1].shape != probe.shape


def _means(state: OptaxAdafactor, name: str, shape: Shape) -> dict[str, np.ndarray]:
    """torch's means of a matrix, from optax's."""
    along = dict(zip(_sides(shape), (state.v_row[name], state.v_col[name]), strict=True))
    rows, columns = (1, 0) if _is_transposed(canonical_name(name)) else (0, 1)
    return {ROW: along[rows][:, None], COLUMN: along[columns][None, :]}


def _shape(name: str, entry: Arrays) -> Shape:
    """That of the Flax twin's matrix."""
    shape = entry[ROW].shape[0], entry[COLUMN].shape[1]
    return shape[::-1] if _is_transposed(name) else shape


def _slots(name: str, entry: Arrays, shape: Shape) -> dict[str, np.ndarray]:
    """optax's means of a matrix, from torch's."""
    along = [entry[ROW][:, 0], entry[COLUMN][0, :]]
    along = along[::-1] if _is_transposed(name) else along
    shorter, longer = _sides(shape)
    return {"v_row": along[shorter], "v_col": along[longer]}
