"""Every operation is undone by its inverse, bit for bit, and says its shapes truly."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import faults_say

from convert.core.operations import AddAxis, Constant, Copy, Duplicate, RuleError, Split, Transpose
from convert.core.pipeline import Converted, check_source
from convert.core.rules import Rule, rename, reverse
from convert.core.tensors import Held
from transformer_spec import Faults, UserError

DTYPES = ["float16", "float32", "float64", "int64", "bool", ml_dtypes.bfloat16]


@st.composite
def arrays(draw, min_rank=0):
    """Random bytes, so that NaN, infinities and -0.0 occur."""
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=min_rank, max_size=4)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    count = int(np.prod(shape, dtype=int))
    seed = draw(st.integers(0, 2**32 - 1))
    content = np.random.default_rng(seed).bytes(count * dtype.itemsize)
    if dtype.kind == "b":
        return (np.frombuffer(content, np.uint8) > 127).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)


def assert_same(one, other):
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert one.tobytes() == other.tobytes()


def assert_invertible(operation, *inputs):
    """There and back, in both readings of the operation, with the shapes it announces."""
    outputs = operation.forward(*inputs)
    shapes = tuple(array.shape for array in inputs)
    assert operation.forward_shapes(*shapes) == tuple(array.shape for array in outputs)
    assert operation.inverse_shapes(*(array.shape for array in outputs)) == shapes
    back = operation.inverse(*outputs)
    assert len(back) == len(inputs)
    for one, other in zip(inputs, back, strict=True):
        assert_same(one, other)
    again = operation.reversed.inverse(*inputs)
    for one, other in zip(outputs, again, strict=True):
        assert_same(one, other)
    for one, other in zip(inputs, operation.reversed.forward(*outputs), strict=True):
        assert_same(one, other)
    assert operation.reversed.reversed is operation


@settings(deadline=None)
@given(arrays())
def test_copy_and_transpose(array):
    assert_invertible(Copy(), array)
    assert_invertible(Transpose(), array)


@settings(deadline=None)
@given(arrays(), st.data())
def test_add_axis(array, data):
    assert_invertible(AddAxis(data.draw(st.integers(0, array.ndim))), array)


@settings(deadline=None)
@given(arrays(min_rank=1), st.integers(1, 4))
def test_split(array, parts):
    assert_invertible(Split(parts), np.concatenate([array] * parts))


@settings(deadline=None)
@given(arrays(), st.integers(1, 4))
def test_duplicate(array, copies):
    assert_invertible(Duplicate(copies), array)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=3), st.sampled_from(DTYPES))
def test_constant(shape, dtype):
    assert_invertible(Constant(tuple(shape), np.dtype(dtype)))


class TestWorkedByHand:
    x = np.arange(6.0).reshape(3, 2)

    def test_transpose(self):
        (y,) = Transpose().forward(self.x)
        assert y.tolist() == [[0, 2, 4], [1, 3, 5]]

    def test_split_and_fuse_rows(self):
        first, second, third = Split(3).forward(self.x)
        assert (first.tolist(), third.tolist()) == ([[0, 1]], [[4, 5]])
        (fused,) = Split(3).reversed.forward(first, second, third)
        assert fused.tolist() == self.x.tolist()

    def test_labels_of_both_directions(self):
        labels = [(x.label, x.reversed.label) for x in (Split(2), Duplicate(2), AddAxis())]
        assert labels == [
            ("split", "fused"),
            ("duplicated", "tied"),
            ("axis added", "axis removed"),
        ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("operation", "arrays"),
        [
            (Split(2).reversed, [np.zeros(2), np.zeros(3)]),
            (Split(2).reversed, [np.zeros(2), np.zeros(2, np.float32)]),
            (Split(2), [np.zeros(3)]),
            (Split(2), [np.zeros(())]),
            (Duplicate(2).reversed, [np.zeros(2), np.ones(2)]),
            (Duplicate(2).reversed, [np.zeros(2), -np.zeros(2)]),
            (AddAxis(0).reversed, [np.zeros((2, 1))]),
            (Constant((2,), np.dtype("f4")).reversed, [np.ones(2, np.float32)]),
        ],
    )
    def test_what_cannot_be_undone_is_refused(self, operation, arrays):
        with pytest.raises(RuleError):
            operation.forward(*arrays)

    def test_ties_compare_bytes(self):
        nan = np.array([np.nan])
        assert_same(*Duplicate(2).reversed.forward(nan, nan.copy()), nan)


def table():
    return [
        rename("a", "x"),
        Rule(("qkv",), ("q", "k", "v"), Split(3)),
        Rule(("e", "tied"), ("e",), Duplicate(2).reversed),
    ]


def given_arrays():
    fused = np.arange(12.0).reshape(6, 2)
    e = np.ones((2, 2))
    return {"a": np.zeros(2), "qkv": fused, "e": e, "tied": e.copy()}


SHAPES = {"x": (2,), "q": (2, 2), "k": (2, 2), "v": (2, 2), "e": (2, 2)}


class TestTables:
    def test_the_reverse_of_a_table_restores_everything(self):
        source = Held(given_arrays())
        there = Converted(source, table())
        back = Converted(there, reverse(table())).read_all()
        assert list(there) == list(SHAPES)
        for name, array in given_arrays().items():
            assert_same(back[name], array)

    def test_one_rule_runs_once_for_its_targets(self):
        class Counted(Held):
            reads = 0

            def read(self, name):
                Counted.reads += 1
                return super().read(name)

        converted = Converted(Counted(given_arrays()), table())
        converted.read_all()
        assert Counted.reads == 4
        assert converted.waiting == {}

    def test_a_false_tie_names_both_tensors(self):
        arrays = given_arrays() | {"tied": np.zeros((2, 2))}
        with pytest.raises(UserError, match=r"e, tied: .*differ"):
            Converted(Held(arrays), table()).read("e")

    def test_all_faults_are_named_in_the_source_s_terms(self):
        arrays = given_arrays() | {"more": np.zeros(3), "e": np.ones((2, 2), int)}
        arrays["qkv"] = arrays["qkv"].T
        del arrays["a"]
        faults = Faults()
        check_source(arrays, table(), SHAPES, faults)
        faults_say(
            faults.messages,
            ("missing", "'a'", "expected float [2]"),
            ("shape", "'qkv'", "float64 [2, 6]", "expected float [6, 2]"),
            ("dtype", "'e'", "int64 [2, 2]", "expected float [2, 2]"),
            ("extra", "'more'", "float64 [3]"),
        )

    def test_two_rules_for_one_tensor(self):
        faults = Faults()
        check_source({"a": np.zeros(2)}, [rename("a", "x"), rename("a", "y")], {}, faults)
        assert faults.messages == ["'a' has two rules"]
