"""Which settings of a run no mesh of several devices can follow."""

from __future__ import annotations

from training_recipe.distributed.mesh import Mesh
from training_recipe.options.settings import TrainingSettings
from transformer_spec import UserError


def check_mesh(settings: TrainingSettings, mesh: Mesh) -> None:
    """Raise UserError where the masks of dropout are those of each device's own generator."""
    if mesh.devices > 1 and settings.dropout_rng == "native":
        raise UserError(
            f"--dropout-rng native draws other masks on every device, and --mesh {mesh} is of "
            f"{mesh.devices}: no other mesh would train the same; give --dropout-rng portable"
        )
