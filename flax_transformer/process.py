"""What a command tells this process once, before a model computes in it; models set nothing."""

import jax

from flax_transformer.compilation_cache import keep_compiled_programs
from training_recipe.freed_memory import keep_freed_memory
from transformer_spec import UserError


def prepare_process(device: str) -> None:
    """Keep freed memory where processors compute, and on disk what is compiled."""
    if device in ("auto", "cpu"):
        keep_freed_memory()
    keep_compiled_programs()


def find_device(name: str) -> "jax.Device":  # pyright: ignore[reportInvalidTypeForm]
    """This process's first device of a setting: auto, cpu, gpu or tpu; none is a UserError."""
    return next(d for d in find_devices(name) if d.process_index == jax.process_index())


def find_devices(name: str) -> "list[jax.Device]":  # pyright: ignore[reportInvalidTypeForm]
    """The devices of all processes that a setting means: auto, cpu, gpu or tpu."""
    try:
        return jax.devices(None if name == "auto" else name)
    except RuntimeError:
        present = sorted({device.platform for device in jax.devices()})
        message = f"--device {name}: JAX sees only {', '.join(present)} on this machine"
        raise UserError(message) from None
