"""Token ids and the vocabulary they are of."""

import numpy as np

from transformer_spec.errors import UserError


def check_ids(ids: np.ndarray, vocab_size: int, side: str) -> None:
    """Raise a UserError where an id is no row of a side's table of embeddings.

    Ids are integers (rows, tokens), one row and one token at least.
    """
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or 0 in ids.shape:
        given = f"{ids.dtype} {list(ids.shape)}"
        raise UserError(f"{side} token ids are {given}; give integers [rows, tokens]")
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if outside.size:
        raise UserError(
            f"{side} token id {outside.flat[0]} is outside the {side} vocabulary of {vocab_size} "
            f"tokens; ids are 0 to {vocab_size - 1}"
        )


def no_array(ids: object, side: str, wanted: str) -> UserError:
    """The error for token ids that are no array of a twin's."""
    return UserError(f"{side} token ids are a {type(ids).__name__}; give a {wanted} of integers")


def check_features(features: tuple[int, ...], number_format: str, M: int) -> None:
    """Raise a UserError where the shape and format of features are not (B, W, M) of some floats."""
    if len(features) == 3 and 0 not in features and features[2] == M and "float" in number_format:
        return
    advice = f"give floats [rows, frames, {M}]"
    raise UserError(f"source features are {number_format} {list(features)}; {advice}")


def no_features(features: object, wanted: str, M: int) -> UserError:
    """The error for source features that are no array of a twin's."""
    given = type(features).__name__
    return UserError(
        f"source features are a {given}; give a {wanted} of floats [rows, frames, {M}]"
    )


def check_memory(memory: tuple[int, ...], positions: int, source: tuple[int, ...]) -> None:
    """Raise a UserError where a memory (B, S, D) is not that of a source with S positions."""
    if memory[1] != positions:
        kind = "frames" if len(source) == 3 else "tokens"
        raise UserError(
            f"memory has {memory[1]} positions and source {source[1]} {kind}; give the memory that "
            "encode(source) gave"
        )


def check_rows(**rows: int) -> None:
    """Raise a UserError where target, memory and source are not of as many rows."""
    first, *others = rows.values()
    if any(count != first for count in others):
        given = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise UserError(f"one row each of target, memory and source go together; {given}")
