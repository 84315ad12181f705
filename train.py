"""Train a Transformer in JAX or PyTorch: ``python train.py --help``."""

from __future__ import annotations

import sys

from training_recipe.backend import MakeBackend
from training_recipe.options.flags import parse
from transformer_spec import UserError
from transformer_spec.errors import exit_status


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
    """The one framework that is asked for; a UserError says how to install it."""
    try:
        if name == "jax":
            from flax_transformer.compilation_cache import keep_compiled_programs
            from flax_transformer.training import make_backend

            keep_compiled_programs()
        else:
            from torch_transformer.training import make_backend
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("flax_transformer", "torch_transformer", "training_recipe", "convert"):
            raise
        raise UserError(
            f"the backend {name} needs {missing}, which is not installed: "
            f"pip install 'twinformer[{name}]', or choose the other --backend"
        ) from None
    return make_backend


if __name__ == "__main__":
    sys.exit(main())
