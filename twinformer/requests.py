"""What can be asked for, beside training: one frozen dataclass for each call."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from training_recipe.distributed.mesh import read_mesh
from training_recipe.options.joining import check_whole
from training_recipe.searching.search import Search, check_search
from transformer_spec import Faults, UserError

DEFAULT_BEAM = 5


@dataclass(frozen=True)
class DiversificationRequest:
    """Pairs made by the models of ``runs``, written to ``out``.SOURCE and ``out``.TARGET or .tsv.

    ``backend`` None is the framework that wrote each run; ``device`` is auto, cpu, gpu or tpu.
    With ``verify`` weights that are not what was saved are an error. ``mesh``, "data=N", spreads
    the texts over the devices that JAX sees.
    """

    runs: tuple[Path, ...]
    out: Path
    search: Search = field(default_factory=lambda: Search(beam=DEFAULT_BEAM))
    backend: str | None = None
    device: str = "auto"
    verify: bool = True
    mesh: str | None = None

    def check(self) -> None:
        """Raise one UserError that names every fault."""
        faults = Faults()
        for path in self.runs:
            there = "it has no settings.json" if path.is_dir() else "there is no such folder"
            settings = path / "settings.json"
            faults.require(settings.is_file(), f"{path} is no run folder: {there}")
        parent = self.out.parent
        faults.require(parent.is_dir(), f"--out is {self.out}; there is no folder {parent}")
        count = os.environ.get("WORLD_SIZE", "1")
        advice = "start one, and in JAX --mesh data=N spreads its texts over devices"
        faults.require(
            count == "1", f"torchrun started {count} processes to do one's work; {advice}"
        )
        try:
            check_search(self.search)
            if self.mesh is not None:
                check_whole(read_mesh(self.mesh))
        except UserError as error:
            faults.take(error)
        faults.raise_if_any("cannot make training pairs")
