"""Portable dropout: the same masks on both sides, as the plain-Python hash says."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import flax_transformer.dropout as flax_side
import torch_transformer.dropout as torch_side
from transformer_spec.dropout_keys import SITE_STRIDE, WORD, drop_threshold, hash32

KEYS = (0, 1, 2**31, 2**32 - 1, 0xDEADBEEF)


def masks(key: int, shape: tuple[int, ...], rate: float, site: int = 1) -> list[np.ndarray]:
    ours, theirs = torch_side.Dropout(key), flax_side.Dropout(key)
    for _ in range(site):
        found = [
            ours.keep_mask(torch.zeros(shape), rate).numpy(),
            np.asarray(theirs.keep_mask(jnp.zeros(shape), rate)),
        ]
    return found


@pytest.mark.parametrize("key", KEYS)
def test_masks_are_the_hash_of_key_site_and_index(key: int) -> None:
    rate = 0.3
    ours, theirs = masks(key, (7, 11), rate, site=3)
    site_key = hash32((key + 3 * SITE_STRIDE) & WORD)
    expected = [hash32((i + site_key) & WORD) >= drop_threshold(rate) for i in range(77)]
    np.testing.assert_array_equal(ours.ravel(), expected)
    np.testing.assert_array_equal(theirs.ravel(), expected)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_independence(rate: float) -> None:
    first, _ = masks(12345, (500, 400), rate)
    second, _ = masks(12345, (500, 400), rate, site=2)
    spread = 4 * np.sqrt(rate * (1 - rate) / first.size)
    assert abs(first.mean() - (1 - rate)) < spread
    for shift in (0, 1, 400):
        together = (first.ravel()[shift:] & second.ravel()[: first.size - shift]).mean()
        assert abs(together - (1 - rate) ** 2) < 2 * spread
    neighbours = (first.ravel()[1:] & first.ravel()[:-1]).mean()
    assert abs(neighbours - (1 - rate) ** 2) < 2 * spread


def test_kept_elements_are_scaled_and_nothing_happens_without_a_source() -> None:
    x = torch.ones(1000)
    assert torch_side.drop(x, 0.25, None) is x
    assert torch_side.drop(x, 0.0, torch_side.Dropout(1)) is x
    dropped = torch_side.drop(x, 0.25, torch_side.Dropout(1))
    assert set(dropped.tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    other = flax_side.drop(jnp.ones(1000), 0.25, flax_side.Dropout(1))
    np.testing.assert_array_equal(np.asarray(other), dropped.numpy())


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4, 4), (1, 7)])
def test_rows_alone_have_the_masks_of_their_batch(shape: tuple[int, ...]) -> None:
    whole, _ = masks(99, (12, *shape[1:]), 0.4)
    for first in (0, 1, 9):
        x, rows = np.zeros(shape), slice(first, first + shape[0])
        ours = torch_side.Dropout(99, first).keep_mask(torch.from_numpy(x), 0.4)
        theirs = flax_side.Dropout(99, jnp.int32(first)).keep_mask(jnp.asarray(x), 0.4)
        np.testing.assert_array_equal(ours.numpy(), whole[rows])
        np.testing.assert_array_equal(np.asarray(theirs), whole[rows])


def test_rows_whose_elements_have_more_than_32_bits() -> None:
    first, x = 2**20 + 3, np.zeros((2, 2**13))
    ours = torch_side.Dropout(7, first).keep_mask(torch.from_numpy(x), 0.5)
    theirs = flax_side.Dropout(7, jnp.int32(first)).keep_mask(jnp.asarray(x), 0.5)
    np.testing.assert_array_equal(ours.numpy(), np.asarray(theirs))
    site_key = hash32((7 + SITE_STRIDE) & WORD)
    index = [first * 2**13 & WORD, (first + 1) * 2**13 + 1 & WORD]
    expected = [hash32((i + site_key) & WORD) >= drop_threshold(0.5) for i in index]
    assert [bool(ours[0, 0]), bool(ours[1, 1])] == expected
