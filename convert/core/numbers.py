"""Number formats of tensors: changing them, and counting what is no finite number."""

import ml_dtypes
import numpy as np

from convert.core.pipeline import is_float
from convert.core.tensors import Header, Tensors

BLOCK = 1 << 16
# The exponent's bits: all of them set mean infinity or no number. NumPy tests these types slowly.
EXPONENTS = {np.dtype(np.float16): 0x7C00, np.dtype(ml_dtypes.bfloat16): 0x7F80}


class AsDtype(Tensors):
    """Other tensors with their floating-point arrays in one type; integers and bools stay.

    Numbers are rounded to the nearest, ties to even; float64 goes to bfloat16 by way of float32,
    as in torch. ``overflowed`` counts, for each array read so far, the finite numbers that became
    infinite.
    """

    def __init__(self, tensors: Tensors, dtype: np.dtype) -> None:
        headers = {
            name: Header(header.shape, dtype if is_float(header.dtype) else header.dtype)
            for name, header in tensors.items()
        }
        super().__init__(tensors.label, headers, tensors.metadata)
        self.tensors = tensors
        self.overflowed: dict[str, int] = {}

    def read(self, name: str) -> np.ndarray:
        """The array itself where its type is the wanted one already."""
        array = self.tensors.read_announced(name)
        if array.dtype == self[name].dtype:
            return array
        with np.errstate(over="ignore", invalid="ignore"):
            changed = array.astype(self[name].dtype)
        count = count_not_finite(changed) - count_not_finite(array)
        if count:
            self.overflowed[name] = count
        return changed

    def warnings(self) -> list[str]:
        """A line for each array in which numbers became infinite."""
        return [
            f"warning: {count:,} numbers of {name} are too large for {self[name].dtype} and "
            "became infinite"
            for name, count in sorted(self.overflowed.items())
        ]


def as_dtype(tensors: Tensors, dtype: np.dtype) -> AsDtype:
    """The tensors with every floating-point array as ``dtype``, changed when it is read."""
    dtype = np.dtype(dtype)
    if not is_float(dtype):
        raise ValueError(f"{dtype} is no floating-point type")
    return AsDtype(tensors, dtype)


def count_not_finite(array: np.ndarray) -> int:
    """How many numbers of an array are infinite or NaN; integers and bools never are."""
    if array.dtype.kind in "biu":
        return 0
    flat = array.reshape(-1, order="A")  # a view where the layout allows it
    return sum(_count(flat[i : i + BLOCK]) for i in range(0, flat.size, BLOCK))


def _count(block: np.ndarray) -> int:
    bits = EXPONENTS.get(block.dtype)
    if bits is None:
        return block.size - int(np.count_nonzero(np.isfinite(block)))
    mask = np.uint16(bits)
    return int(np.count_nonzero((block.view(np.uint16) & mask) == mask))
