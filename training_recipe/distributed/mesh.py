"""How devices stand: ``data`` copies of the weights, each split over ``fsdp`` devices.

Every device computes rows of its own of every batch. One copy for each device is data parallel
training; one copy split over all is fully sharded (Zhao et al. 2023, "PyTorch FSDP"); both are
hybrid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformer_spec import UserError

AXES = ("data", "fsdp")
REST = -1
PART = re.compile(r"\s*(\w+)\s*=\s*(-?\d+)\s*")
FORM = "give data=N, fsdp=N or both, as in data=2,fsdp=8; one N may be -1, the rest"


@dataclass(frozen=True)
class Mesh:
    """The sizes of both axes; in a mesh that was only asked for, one may be -1."""

    data: int = 1
    fsdp: int = 1

    @property
    def devices(self) -> int:
        """How many devices stand in it."""
        return self.data * self.fsdp

    def __str__(self) -> str:
        return f"data={self.data},fsdp={self.fsdp}"

    @property
    def flag(self) -> str:
        """As it is asked for."""
        if self.fsdp == 1:
            return f"data={self.data}"
        return f"fsdp={self.fsdp}" if self.data == 1 else f"data={self.data},fsdp={self.fsdp}"

    def on(self, devices: int) -> Mesh:
        """The mesh with -1 filled in; one that is not of so many devices is a UserError."""
        given = [size for size in (self.data, self.fsdp) if size != REST]
        rest = devices // max(1, given[0]) if len(given) == 1 else 1
        data, fsdp = (rest if size == REST else size for size in (self.data, self.fsdp))
        if data * fsdp != devices:
            size = data * fsdp if len(given) == 2 else f"a multiple of {given[0]}"
            raise UserError(
                f"--mesh {self.flag} is of {size} devices, and there {_are(devices)}; the "
                f"sizes must multiply to {devices}, and -1 stands for the rest"
            )
        return Mesh(data, fsdp)


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def read_mesh(text: str) -> Mesh:
    """The mesh of ``data=2,fsdp=8``, an axis that is not named being 1; else a UserError."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        found = PART.fullmatch(part)
        if found is None or found[1] not in AXES:
            raise UserError(f"--mesh {text!r} is no mesh, by {part.strip()!r}; {FORM}")
        if found[1] in sizes:
            raise UserError(f"--mesh {text!r} names {found[1]} twice; {FORM}")
        sizes[found[1]] = int(found[2])
    if any(size < 1 and size != REST for size in sizes.values()):
        raise UserError(f"--mesh {text!r} has a size below 1; {FORM}")
    if list(sizes.values()).count(REST) > 1:
        raise UserError(f"--mesh {text!r} leaves both sizes open; {FORM}")
    return Mesh(**sizes)
