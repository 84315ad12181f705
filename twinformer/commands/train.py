"""Train a Transformer in JAX or PyTorch: ``twinformer train --help``."""

from __future__ import annotations

from training_recipe.backend import MakeBackend
from training_recipe.options.flags import parse
from transformer_spec.door import exit_status


def main(arguments: list[str] | None = None, make_backend: MakeBackend | None = None) -> int:
    """Train as the arguments say; the exit status. ``make_backend`` stands in for a framework."""

    def run() -> int:
        request = parse(arguments)
        # The loop reads data and draws, which --help must not wait for.
        from twinformer.training.joining import train_together

        return train_together(request, make_backend).status

    return exit_status(run, "stopped before training began; nothing was saved")
