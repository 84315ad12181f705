"""Dropout (Srivastava et al. 2014): with masks both twins share, or PyTorch's own."""

import torch
from jaxtyping import Bool
from torch import Tensor

from torch_transformer.precision import kept, wide
from transformer_spec.dropout_keys import (
    MULTIPLIER_1,
    MULTIPLIER_2,
    SHIFT_1,
    SHIFT_2,
    SITE_STRIDE,
    WORD,
    check_key,
    drop_threshold,
    hash32,
)


class Dropout:
    """Masks that the Flax twin shares: those of one call of the model, by a key of 32 bits.

    Every place that drops out is another site. A step needs a key of its own: of equal keys the
    masks are equal. A key that is no whole number of 32 bits is a UserError.

    Where a process has some rows of a batch alone, the first of them is the batch's row
    ``first_row``: masks are those that the rows have in the whole batch.
    """

    def __init__(self, key: int, first_row: int = 0) -> None:
        self.key, self.first_row, self.site = check_key(key), first_row, 0

    def next_key(self) -> int:
        self.site += 1
        return hash32((self.key + self.site * SITE_STRIDE) & WORD)

    def elements_before(self, x: Tensor) -> int:
        """How many elements the rows before these have."""
        return self.first_row * (x.numel() // max(1, x.shape[0]))

    def keep_mask(self, x: Tensor, rate: float) -> Bool[Tensor, "..."]:
        bits = torch.arange(x.numel(), dtype=torch.int32, device=x.device)
        bits += _signed((self.next_key() + self.elements_before(x)) & WORD)
        bits ^= (bits >> SHIFT_1).bitwise_and_(WORD >> SHIFT_1)
        bits *= _signed(MULTIPLIER_1)
        bits ^= (bits >> SHIFT_2).bitwise_and_(WORD >> SHIFT_2)
        bits *= _signed(MULTIPLIER_2)
        bits ^= -(2**31)  # flipping the top bit turns unsigned order into signed order
        return (bits >= drop_threshold(rate) - 2**31).view(x.shape)

    def __call__(self, x: Tensor, rate: float) -> Tensor:
        return x * (self.keep_mask(x, rate).to(wide(x.dtype)) * (1 / (1 - rate)))


class NativeDropout(Dropout):
    """Masks of PyTorch's global generator, which a key seeds anew; no other twin's."""

    def __init__(self, key: int | None = None, first_row: int = 0) -> None:
        super().__init__(key or 0, first_row)
        if key is not None:
            torch.manual_seed(key)

    def keep_mask(self, x: Tensor, rate: float) -> Bool[Tensor, "..."]:
        return self(torch.ones_like(x), rate) > 0

    def __call__(self, x: Tensor, rate: float) -> Tensor:
        return torch.nn.functional.dropout(x.to(wide(x.dtype)), rate)


SOURCES = {"portable": Dropout, "native": NativeDropout}


def drop(x: Tensor, rate: float, dropout: Dropout | None) -> Tensor:
    """Zero each element with probability ``rate`` and scale the others by 1/(1-rate)."""
    return x if dropout is None or rate == 0 else kept(dropout(x, rate), x.dtype)


def _signed(word: int) -> int:
    """The signed 32-bit number with the same bits: PyTorch multiplies signed integers only."""
    return word - 2**32 if word >= 2**31 else word
