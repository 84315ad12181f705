"""Token ids and the vocabulary they are of."""

import numpy as np

from transformer_spec.config import TransformerConfig
from transformer_spec.errors import UserError


def check_ids(ids: np.ndarray, vocab_size: int, side: str) -> None:
    """Raise a UserError where an id is no row of a side's table of embeddings.

    Ids are integers (rows, tokens), one row and one token at least.
    """
    check_kind(ids.shape, str(ids.dtype), side)
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if outside.size:
        raise UserError(
            f"{side} token id {outside.flat[0]} is outside the {side} vocabulary of {vocab_size} "
            f"tokens; ids are 0 to {vocab_size - 1}"
        )


def check_kind(shape: tuple[int, ...], number_format: str, side: str) -> None:
    """Raise a UserError where the shape and format of token ids are not (rows, tokens) of integers.

    It is what ``check_ids`` can know before there are numbers.
    """
    if len(shape) == 2 and 0 not in shape and "int" in number_format:
        return
    given = f"{number_format} {list(shape)}"
    advice = "give integers [rows, tokens], one row and one token at least"
    raise UserError(f"{side} token ids are {given}; {advice}")


def given_ids(ids: object, vocab_size: int, side: str) -> np.ndarray:
    """Token ids (B, K) as NumPy has them; a UserError for what ``check_ids`` refuses."""
    found = _in_numpy(ids, no_array(ids, side, "numpy.ndarray"))
    check_ids(found, vocab_size, side)
    return found


def given_source(source: object, config: TransformerConfig) -> np.ndarray:
    """A source in NumPy: token ids (B, S), or features (B, W, M) where the model hears.

    What the model does not read is a UserError.
    """
    if not config.feature_dim:
        return given_ids(source, config.source_vocab_size, "source")
    M = config.feature_dim
    features = _in_numpy(source, no_features(source, "numpy.ndarray", M))
    check_features(features.shape, str(features.dtype), M)
    return features


def _in_numpy(given: object, fault: UserError) -> np.ndarray:
    try:
        return np.asarray(given)
    except (TypeError, ValueError):  # an array on another device, rows of several lengths
        raise fault from None


def given_pair(
    source: object, target: object, config: TransformerConfig
) -> tuple[np.ndarray, np.ndarray]:
    """A source as ``given_source`` gives it, and the target ids (B, T) of as many rows."""
    read = given_source(source, config)
    written = given_ids(target, config.target_vocab_size, "target")
    check_rows(target=len(written), source=len(read))
    return read, written


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
