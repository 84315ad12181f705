"""What is in a folder or file of weights, once it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.checkpoints.layouts import Layout
from convert.checkpoints.optimizers.torch_states import OptimizerPart
from convert.checkpoints.records import Record
from convert.core.tensors import Subset, Tensors
from convert.families.base import OtherSettings
from transformer_spec import UserError

LEFT_OUT = "the optimizer is left out, the weights are not: "


@dataclass(frozen=True)
class Content:
    """The tensors of one folder or file under its own names, and the optimizer's step count.

    ``dropped`` are those among them that are neither weights nor moments, name -> reason;
    ``notes`` say which files were not read, ``unread`` why an optimizer beside them was not,
    ``told`` what there is to say of one that is carried, ``hyperparameters`` its settings where a
    loop's state holds them, under torch's names;
    ``others`` are weight files beside the one that is read; ``of_loop`` says that moments may be
    there of some weights alone, and of what is no weight; ``record`` is what the tensors are
    compared with while they are read; ``files`` are those that tensors are read from, or folders of
    Orbax; ``other`` is a config.json that is not the source of ``settings``, where they are None.
    """

    tensors: Tensors
    layout: Layout
    count: int | None
    container: str
    settings: Mapping[str, Any] | None = None
    optimizer: OptimizerPart | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    unread: str = ""
    told: Sequence[str] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    others: Sequence[Path] = ()
    of_loop: bool = False
    record: Record | None = None
    files: Sequence[Path] = ()
    other: OtherSettings | None = None

    @property
    def kept(self) -> Tensors:
        """The tensors without those that are dropped."""
        if not self.dropped:
            return self.tensors
        return Subset(self.tensors, [name for name in self.tensors if name not in self.dropped])


def left_out(error: UserError) -> str:
    """Why an optimizer is not carried, on one line."""
    first, *others = str(error).splitlines()
    heading = first.rpartition(":")[0] if others else first
    told = f"{heading}: {others[0].strip()}" if others else first
    more = f" (and {len(error.faults) - 1} more)" if len(error.faults) > 1 else ""
    return f"{LEFT_OUT}{told}{more}"
