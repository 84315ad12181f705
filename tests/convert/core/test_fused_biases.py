"""Biases of several layers in one array, zeros for a layer that has none."""

import numpy as np
import pytest
from messages import saying

from convert.core.fused_biases import FusedBiases
from convert.core.operations import RuleError

WITHOUT_KEYS = FusedBiases([True, False, True])
Q, V = np.array([1, -2], np.float16), np.array([3, 5], np.float16)


def test_zeros_stand_for_the_layer_that_has_none():
    (found,) = WITHOUT_KEYS.forward(Q, V)
    assert found.tolist() == [1, -2, 0, 0, 3, 5] and found.dtype == np.float16
    assert [part.tolist() for part in WITHOUT_KEYS.inverse(found)] == [[1, -2], [3, 5]]
    (found,) = FusedBiases([False, True]).forward(V)
    assert found.tolist() == [0, 0, 3, 5]


def test_shapes():
    assert WITHOUT_KEYS.forward_shapes((2,), (2,)) == ((6,),)
    assert WITHOUT_KEYS.inverse_shapes((6,)) == ((2,), (2,))
    assert WITHOUT_KEYS.reversed.compares and not WITHOUT_KEYS.compares


@pytest.mark.parametrize("number", [1e-7, -1.0, np.nan, np.inf])
def test_another_number_than_zero_is_refused(number):
    fused = np.array([1, 2, 0, number, 3, 5], np.float32)
    with pytest.raises(RuleError, check=saying("keys", "not zero")):
        WITHOUT_KEYS.inverse(fused)


@pytest.mark.parametrize("arrays", [(Q,), (Q, V, V), (Q, V[:1]), (Q[None], V[None])])
def test_others_are_not_fused(arrays):
    with pytest.raises(RuleError, check=saying("2 equally long biases are fused")):
        WITHOUT_KEYS.forward(*arrays)


@pytest.mark.parametrize("shape", [(7,), (6, 1), ()])
def test_others_are_not_cut(shape):
    with pytest.raises(RuleError, check=saying("cannot be cut into 3 biases")):
        WITHOUT_KEYS.inverse(np.zeros(shape))
