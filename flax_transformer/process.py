"""What a command tells this process once, before a model computes in it; models set nothing."""

import jax

from flax_transformer.compilation_cache import keep_compiled_programs
from training_recipe.freed_memory import keep_freed_memory
from transformer_spec import UserError


def prepare_process(device: str, dtype: str) -> None:
    """Make ready for the settings ``device`` and ``dtype``; what is compiled is kept on disk."""
    if device in ("auto", "cpu"):
        keep_freed_memory()
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    keep_compiled_programs()


def find_device(name: str) -> "jax.Device":  # pyright: ignore[reportInvalidTypeForm]
    """The device of a setting: auto, cpu, gpu or tpu; one that is absent is a UserError."""
    try:
        return jax.devices(None if name == "auto" else name)[0]
    except RuntimeError:
        present = sorted({device.platform for device in jax.devices()})
        message = f"--device {name}: JAX sees only {', '.join(present)} on this machine"
        raise UserError(message) from None


def check_number_format(dtype: str) -> None:
    """64-bit numbers that JAX would make 32-bit ones of are a UserError."""
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise UserError(
            "float64 needs JAX's 64-bit numbers, which are off: call "
            "flax_transformer.process.prepare_process first, or set JAX_ENABLE_X64=1"
        )
