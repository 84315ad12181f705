"""Both frameworks: whether they are there, exact, and have the devices that are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from transformer_spec import Faults, UserError


@contextlib.contextmanager
def both_frameworks(otherwise: str = "") -> Iterator[None]:
    """A library that the imports of the block miss becomes a UserError that says what to install.

    ``otherwise`` is what can be done without it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; the comparison needs both frameworks: "
            f"pip install 'twinformer[all]'{otherwise and f'; {otherwise}'}"
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
