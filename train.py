"""Train a Transformer in JAX or PyTorch: ``python train.py --help``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from training_recipe.backend import Backend, Checkpoint, MakeBackend
from training_recipe.options.flags import parse
from transformer_spec import UserError
from transformer_spec.errors import exit_status

if TYPE_CHECKING:
    from training_recipe.options.settings import TrainingSettings
    from transformer_spec import TransformerConfig

OURS = ("flax_transformer", "torch_transformer", "training_recipe", "convert", "twinformer")


def main(arguments: list[str] | None = None, make_backend: MakeBackend | None = None) -> int:
    """Train as the arguments say; the exit status. ``make_backend`` stands in for a framework."""

    def run() -> int:
        request = parse(arguments)
        # The loop reads data and draws, which --help must not wait for.
        from twinformer.training.loop import train
        from twinformer.training.starting import backend_name

        name = backend_name(request)
        return train(request, name, make_backend or import_backend(name))

    return exit_status(run, "stopped before training began; nothing was saved")


def import_backend(name: str) -> MakeBackend:
    """The one framework that is asked for; a UserError says how to install it.

    What it makes is for this process, which is prepared for it.
    """
    try:
        if name == "jax":
            from flax_transformer.process import prepare_process
            from flax_transformer.step import make_backend
        else:
            from torch_transformer.process import prepare_process
            from torch_transformer.step import make_backend
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OURS:
            raise
        raise UserError(
            f"the backend {name} needs {missing}, which is not installed: "
            f"pip install 'twinformer[{name}]', or choose the other --backend"
        ) from None

    def make(config: TransformerConfig, settings: TrainingSettings, state: Checkpoint) -> Backend:
        prepare_process(settings.device, settings.dtype)
        return make_backend(config, settings, state)

    return make


if __name__ == "__main__":
    sys.exit(main())
