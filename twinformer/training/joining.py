"""From a request to the run that all processes train together."""

from __future__ import annotations

from training_recipe.backend import MakeBackend
from training_recipe.options.extras import require_training
from training_recipe.options.joining import joining_of
from training_recipe.options.request import Request
from transformer_spec import UserError
from twinformer.frameworks import joined, training_backend
from twinformer.training.loop import Trained, train
from twinformer.training.starting import backend_name, begun_or_new, device


def train_together(request: Request, make_backend: MakeBackend | None = None) -> Trained:
    """Join the other processes, where there are any, before anything else, and train with them.

    ``make_backend`` stands in for a framework, in a lone process.
    """
    request = begun_or_new(request)
    if make_backend is not None:
        return train(request, backend_name(request), make_backend)
    name, kind, fault = framework(request)
    require_training(name)
    with joined(name, joining_of(request.invocation, kind)) as world:
        with world.processes.together():
            if fault is not None:
                raise fault
        return train(request, name, training_backend(name, world), world)


def framework(request: Request) -> tuple[str, str, UserError | None]:
    """The backend and the kind of device to train by.

    Where the run that is to go on does not say so, as its folder is on no shared disk, the others
    are told: torchrun ends them, and JAX's are joined first.
    """
    try:
        return backend_name(request), device(request), None
    except UserError as error:
        if joining_of(request.invocation, "auto").mode != "jax":
            raise
        return "jax", "auto", error
