"""Token ids and the vocabulary they are of."""

import numpy as np

from transformer_spec.errors import UserError


def check_ids(ids: np.ndarray, vocab_size: int, side: str) -> None:
    """Raise a UserError where an id is no row of a side's table of embeddings."""
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if outside.size:
        raise UserError(
            f"{side} token id {outside.flat[0]} is outside the {side} vocabulary of {vocab_size} "
            f"tokens; ids are 0 to {vocab_size - 1}"
        )


def check_rows(**rows: int) -> None:
    """Raise a UserError where target, memory and source are not of as many rows."""
    if len(set(rows.values())) > 1:
        given = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise UserError(f"one row each of target, memory and source go together; {given}")
