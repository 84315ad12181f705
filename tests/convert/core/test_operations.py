"""Every further operation is undone by its inverse, bit for bit, and says its shapes truly."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from messages import saying
from test_rules import arrays, assert_invertible

from convert.core.operations import (
    TRANSPOSE,
    AddAxis,
    Chain,
    Duplicate,
    MergeAxes,
    RuleError,
    Split,
    Transpose,
    Unstack,
    ZeroRows,
)
from convert.core.pipeline import Converted
from convert.core.rules import rename
from convert.core.tensors import Held
from transformer_spec import UserError


@settings(deadline=None)
@given(arrays(min_rank=1), st.integers(0, 3))
def test_zero_rows(array, count):
    assert_invertible(ZeroRows(count), array)


@settings(deadline=None)
@given(arrays(min_rank=2), st.integers(0, 3), st.integers(1, 3))
def test_chain(array, count, copies):
    assert_invertible(Chain(Transpose(), ZeroRows(count), Duplicate(copies)), array)
    assert_invertible(Chain(AddAxis(0), AddAxis(0).reversed, Transpose()), array)
    assert_invertible(
        Chain(ZeroRows(count).reversed, Transpose()), ZeroRows(count).forward(array)[0]
    )


@settings(deadline=None)
@given(arrays(min_rank=2))
def test_unstack_and_merge_axes(array):
    assume(array.size)
    assert_invertible(Unstack(array.shape[1], 1), array)
    assert_invertible(Unstack(array.shape[0], 0), array)
    assert_invertible(MergeAxes(0, array.shape[:2]), array)
    layers = Chain(Unstack(array.shape[0], 0), Transpose())
    assert_invertible(layers, array)


def test_an_empty_chain_copies():
    x = np.arange(3.0)
    assert_invertible(Chain(), x)
    assert Chain().label == ""


class TestWorkedByHand:
    x = np.arange(1.0, 7.0, dtype=np.float32).reshape(3, 2)

    def test_zero_rows(self):
        (y,) = ZeroRows(1).forward(self.x)
        assert y.tolist() == [[1, 2], [3, 4], [5, 6], [0, 0]]
        assert y.dtype == np.float32

    def test_layers_and_heads(self):
        x = np.arange(24).reshape(2, 3, 4)
        assert [part.tolist() for part in Unstack(3, 1).forward(x)] == [
            [[0, 1, 2, 3], [12, 13, 14, 15]],
            [[4, 5, 6, 7], [16, 17, 18, 19]],
            [[8, 9, 10, 11], [20, 21, 22, 23]],
        ]
        (merged,) = MergeAxes(1, (3, 4)).forward(x)
        assert merged.tolist() == [list(range(12)), list(range(12, 24))]
        assert Unstack(3, 1).inverse_shapes((2, 4), (2, 4), (2, 4)) == ((2, 3, 4),)
        assert MergeAxes(0, (2, 3)).inverse_shapes((6, 4)) == ((2, 3, 4),)

    def test_the_chain_runs_from_left_to_right_and_back(self):
        chain = Chain(TRANSPOSE, ZeroRows(1))
        (y,) = chain.forward(self.x)
        assert y.tolist() == [[1, 3, 5], [2, 4, 6], [0, 0, 0]]
        assert chain.forward_shapes((3, 2)) == ((3, 3),)
        assert chain.inverse_shapes((3, 3)) == ((3, 2),)

    def test_labels_of_both_directions(self):
        chain = Chain(AddAxis(0).reversed, ZeroRows(1), Split(2))
        assert chain.label == "axis removed, zero rows added, split"
        assert chain.reversed.label == "fused, zero rows cut, axis added"


class TestRefusals:
    @pytest.mark.parametrize(
        ("operation", "array"),
        [
            (ZeroRows(1), np.zeros(())),
            (ZeroRows(1).reversed, np.zeros(())),
            (ZeroRows(2).reversed, np.zeros((1, 2))),
            (ZeroRows(1).reversed, np.array([[0.0, 1], [0, 2]])),
            (ZeroRows(1).reversed, np.array([[1.0, 1], [0, -0.0]])),
            (Chain(ZeroRows(1), AddAxis(0).reversed), np.zeros((3, 2))),
            (Unstack(2, 1), np.zeros((2, 3))),
            (Unstack(2, 1), np.zeros(2)),
            (Unstack(2, 0).reversed, np.zeros((2, 3))),
            (MergeAxes(0, (2, 3)), np.zeros((3, 2))),
            (MergeAxes(1, (2, 3)).reversed, np.zeros((6, 5))),
        ],
    )
    def test_what_cannot_be_undone_is_refused(self, operation, array):
        with pytest.raises(RuleError):
            operation.forward(array)

    def test_a_trained_row_is_named_with_its_tensor(self):
        rule = rename("table", "padded", ZeroRows(1)).reversed
        source = Held({"padded": np.ones((3, 2))})
        with pytest.raises(UserError, check=saying("padded", "last 1 of its 3 rows", "zeros")):
            Converted(source, [rule]).read("table")
