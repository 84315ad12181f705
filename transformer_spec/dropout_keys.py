"""The numbers behind portable dropout: both twins drop the same elements.

Whether element i of a tensor is dropped is a pure function of (seed, number, site, i), where
batches are numbered through all of training, and sites in the order in which the model reaches
them. Each twin evaluates ``hash32`` on its own device; this file fixes the constants and derives
the key of a batch in plain Python.
"""

import hashlib

from transformer_spec.errors import UserError
from transformer_spec.strict import is_whole

# Multipliers and shifts of the 32-bit mixer "lowbias32" (C. Wellons, "Prospecting for Hash
# Functions", 2018); the last shift is left out because only the high bits decide.
MULTIPLIER_1 = 0x7FEB352D
MULTIPLIER_2 = 0x846CA68B
SHIFT_1 = 16
SHIFT_2 = 15
SITE_STRIDE = 0x9E3779B9

WORD = 0xFFFFFFFF


def hash32(x: int) -> int:
    """Mix a 32-bit number; the reference for what both twins compute elementwise."""
    x ^= x >> SHIFT_1
    x = x * MULTIPLIER_1 & WORD
    x ^= x >> SHIFT_2
    return x * MULTIPLIER_2 & WORD


def check_key(key: object) -> int:
    """The key of one call of a model; a UserError where it is no whole number of 32 bits."""
    if not is_whole(key, 0, WORD):
        raise no_key(repr(key))
    return int(key)


def no_key(given: str) -> UserError:
    """The error for a key that is none."""
    return UserError(f"the key of a Dropout is {given}; give a whole number from 0 to {WORD}")


def batch_key(seed: int, number: int) -> int:
    """The key of one training batch: a hash of 32 bits, so that two of very many may be equal."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def batch_keys(seed: int, step: int, batches: int) -> list[int]:
    """A key for each batch of a training step; batches count from 1, through all steps."""
    first = (step - 1) * batches + 1
    return [batch_key(seed, number) for number in range(first, first + batches)]


def drop_threshold(rate: float) -> int:
    """An element is dropped where its hash is below this 32-bit number."""
    return min(round(rate * 2**32), WORD)
