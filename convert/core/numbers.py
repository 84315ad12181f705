"""Number formats of tensors: changing them, and counting what is no finite number."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from convert.core.pipeline import is_float
from convert.core.tensors import Header, Tensors
from transformer_spec.errors import first_of, printable_name

BLOCK = 1 << 16
# The exponent's bits: all of them set mean infinity or no number. NumPy tests these types slowly.
EXPONENTS = {np.dtype(np.float16): 0x7C00, np.dtype(ml_dtypes.bfloat16): 0x7F80}


class AsDtype(Tensors):
    """Other tensors with their floating-point arrays in one type; integers and bools stay.

    Numbers are rounded to the nearest, ties to even; float64 goes to bfloat16 by way of float32,
    as in torch. ``overflowed`` counts, for each array read so far, the finite numbers that became
    infinite, and ``underflowed`` the numbers that became 0; ``vanished`` are arrays of 0 since.
    """

    def __init__(self, tensors: Tensors, dtype: np.dtype) -> None:
        headers = {
            name: Header(header.shape, dtype if is_float(header.dtype) else header.dtype)
            for name, header in tensors.items()
        }
        super().__init__(tensors.label, headers, tensors.metadata)
        self.tensors = tensors
        self.overflowed: dict[str, int] = {}
        self.underflowed: dict[str, int] = {}
        self.vanished: set[str] = set()

    def read(self, name: str) -> np.ndarray:
        """The array itself where its type is the wanted one already."""
        array = self.tensors.read_announced(name)
        if array.dtype == self[name].dtype:
            return array
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            changed = array.astype(self[name].dtype)
        if count := count_not_finite(changed) - count_not_finite(array):
            self.overflowed[name] = count
        if _is_coarser(changed.dtype, array.dtype):
            self._count_zeros(name, array, changed)
        return changed

    def _count_zeros(self, name: str, array: np.ndarray, changed: np.ndarray) -> None:
        zeros = count_zeros(changed)
        if count := zeros - count_zeros(array):
            self.underflowed[name] = count
            if zeros == changed.size:
                self.vanished.add(name)

    def warnings(self) -> list[str]:
        """What became infinite, by arrays, and how many numbers became 0."""
        lines = [
            f"warning: {count:,} numbers of {printable_name(name)} are too large for "
            f"{self[name].dtype} and became infinite"
            for name, count in sorted(self.overflowed.items())
        ]
        return first_of(lines, "arrays with such numbers") + self._became_zero()

    def _became_zero(self) -> list[str]:
        """Of single numbers their count is enough; an array that has no others is named."""
        lost = [
            f"warning: all numbers of {printable_name(name)} that were not 0 are too small for "
            f"{self[name].dtype} and became 0"
            for name in sorted(self.vanished)
        ]
        count = sum(self.underflowed.values())
        said = f"note: {count:,} numbers were too small for the number format and became 0"
        return first_of(lost, "arrays without another number") + [said] * bool(count)


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
    return sum(_count(block) for block in _blocks(array))


def count_zeros(array: np.ndarray) -> int:
    """How many floating-point numbers of an array are 0 or -0: all bits but the sign's are."""
    bits = np.dtype(f"u{array.itemsize}")
    others = (int(np.count_nonzero(b.view(bits) << bits.type(1))) for b in _blocks(array))
    return array.size - sum(others)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    flat = array.reshape(-1, order="A")  # a view where the layout allows it
    return (flat[i : i + BLOCK] for i in range(0, flat.size, BLOCK))


def _is_coarser(dtype: np.dtype, given: np.dtype) -> bool:
    """Whether the smallest number of a type is larger than that of the one before."""
    smallest = [float(ml_dtypes.finfo(d).smallest_subnormal) for d in (dtype, given)]
    return smallest[0] > smallest[1]


def _count(block: np.ndarray) -> int:
    bits = EXPONENTS.get(block.dtype)
    if bits is None:
        return block.size - int(np.count_nonzero(np.isfinite(block)))
    mask = np.uint16(bits)
    return int(np.count_nonzero((block.view(np.uint16) & mask) == mask))
