"""Both frameworks: whether they are there, exact, and have the devices that are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from parity.sides.given import HUGGING_FACE
from transformer_spec import Faults, UserError

FRAMEWORKS = ("torch", "jax", "flax")
LIBRARY = "transformers"


@contextlib.contextmanager
def both_frameworks(otherwise: str = "", givens: Iterable[str] = ()) -> Iterator[None]:
    """Libraries that the imports of the block miss become a UserError that says what to install.

    ``otherwise`` is what can be done without them. ``givens`` are A and B as typed, one of which
    may need a library of its own.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        by_library = any(given.startswith(HUGGING_FACE) for given in givens)
        needed = [*FRAMEWORKS, LIBRARY] if by_library else FRAMEWORKS
        lacking = [name for name in needed if find_spec(name) is None] or [error.name]
        more = f", and {HUGGING_FACE} {LIBRARY}" if LIBRARY in lacking else ""
        raise UserError(
            f"not installed: {', '.join(map(str, lacking))}; the comparison needs both "
            f"frameworks{more}: pip install 'twinformer[all]'{f' {LIBRARY}' if more else ''}"
            f"{otherwise and f'; {otherwise}'}"
        ) from None


def exact_numbers() -> None:
    """64-bit numbers and full float32 precision in both frameworks."""
    import jax
    import torch

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    torch.set_float32_matmul_precision("highest")


def check_devices(wanted: Iterable[tuple[str, str, str]]) -> None:
    """(label, framework, device) that are not to be had here are one UserError."""
    from flax_transformer.process import find_device as find_in_jax
    from torch_transformer.process import find_device as find_in_torch

    faults, find = Faults(), {"torch": find_in_torch, "jax": find_in_jax}
    for label, framework, device in wanted:
        try:
            find[framework](device)
        except UserError as error:
            faults.add(f"{label}: {error}")
    faults.raise_if_any("cannot compute there")
