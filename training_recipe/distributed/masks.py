"""Which masks of dropout can be drawn on a mesh."""

from __future__ import annotations

from training_recipe.distributed.mesh import Mesh
from transformer_spec import UserError


def check_masks(dropout_rng: str, mesh: Mesh) -> None:
    """Raise UserError for masks that depend on how many devices there are."""
    if dropout_rng == "native" and mesh.devices > 1:
        raise UserError(
            f"--dropout-rng native draws masks on each device by itself, so a run on {mesh} would "
            "not be that of one device; leave it out: portable masks are the same on any mesh"
        )
