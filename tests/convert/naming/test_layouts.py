"""Layouts of theirs: every word, exact both ways, and shapes that do not fit."""

import numpy as np
import pytest

from convert.core.operations import RuleError
from convert.naming.layouts import layout_fault, operation_of, parse_layout, usual_layout
from transformer_spec import TransformerConfig, UserError

CONFIG = TransformerConfig(23, 19, 12, 20, 3, 1, 1, 7, head_dim=5)
D, H, A = CONFIG.hidden_dim, CONFIG.num_heads, CONFIG.head_dim
Q = "encoder.enc_layers.{i}.multiheadattention.fcQ.weight"
Q_BIAS = Q.replace("weight", "bias")
OUT, FC1 = Q.replace("fcQ", "fcOut"), "encoder.enc_layers.{i}.ffn.fc1.weight"
NORM, TABLE = "encoder.final_norm.weight", "encoder.pos_embedding.weight"


def tiled(a):
    return np.concatenate([a] * H)


def diagonal(a):
    return np.kron(np.eye(H, dtype=a.dtype), a)


# layout, name of ours, how many of ours, shape of theirs, each of ours by NumPy
CASES = [
    ("(out, in)", FC1, 1, (20, D), lambda a: [a]),
    ("(in, out)", FC1, 1, (D, 20), lambda a: [a.T]),
    ("(in, out)", Q, 1, (D, H * A), lambda a: [a.T]),
    ("(in, heads, dim)", Q, 1, (D, H, A), lambda a: [a.reshape(D, -1).T]),
    ("(heads, in, dim)", Q, 1, (H, D, A), lambda a: [a.transpose(0, 2, 1).reshape(-1, D)]),
    ("(dim heads, in)", Q, 1, (A * H, D), lambda a: [
        a.reshape(A, H, D).transpose(1, 0, 2).reshape(-1, D)
    ]),
    ("(heads, dim)", Q_BIAS, 1, (H, A), lambda a: [a.reshape(-1)]),
    ("(heads, dim, out)", OUT, 1, (H, A, D), lambda a: [a.reshape(-1, D).T]),
    ("(out, heads, dim)", OUT, 1, (D, H, A), lambda a: [a.reshape(D, -1)]),
    ("(parts out, in)", Q, 3, (3 * H * A, D), lambda a: np.split(a, 3)),
    ("(in, parts out)", Q, 2, (D, 2 * H * A), lambda a: [p.T for p in np.split(a, 2, 1)]),
    ("(parts, in, out)", Q, 3, (3, D, H * A), lambda a: [p.T for p in a]),
    ("(in, heads parts dim)", Q, 3, (D, H * 3 * A), lambda a: [
        a.reshape(D, H, 3, A)[:, :, part].reshape(D, -1).T for part in range(3)
    ]),
    ("(heads parts dim)", Q_BIAS, 3, (H * 3 * A,), lambda a: [
        a.reshape(H, 3, A)[:, part].reshape(-1) for part in range(3)
    ]),
    ("(parts out)", Q_BIAS, 3, (3 * H * A,), lambda a: np.split(a, 3)),
    ("(in, out)", FC1, 2, (D, 20), lambda a: [a.T, a.T]),
    ("(1, rows, width)", TABLE, 1, (1, 7, D), lambda a: [a[0]]),
    ("(rows, 1, width)", TABLE, 2, (7, 1, D), lambda a: [a[:, 0]] * 2),
    ("(width, rows)", TABLE, 1, (D, 7), lambda a: [a.T]),
    ("(one)", NORM, 1, (1,), lambda a: [np.repeat(a, D)]),
    ("()", NORM, 1, (), lambda a: [np.repeat(a, D)]),
    ("(1, 1, width)", NORM, 1, (1, 1, D), lambda a: [a[0, 0]]),
    ("(block, block)", Q, 1, (A, A), lambda a: [diagonal(a)]),
    ("(block)", Q_BIAS, 1, (A,), lambda a: [tiled(a)]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "ours", "count", "shape", "expected"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_layout_there_and_back(text, ours, count, shape, expected, dtype):
    layout = parse_layout(text)
    assert layout_fault(layout, ours, count) is None
    operation = operation_of(layout, ours, count, CONFIG)
    given = np.asarray(np.random.default_rng(0).normal(0, 99, shape)).astype(dtype)
    found, wanted = operation.forward(given), expected(given)
    assert len(found) == len(wanted) == count
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == given.dtype and np.array_equal(one, other)
    shapes = tuple(array.shape for array in found)
    assert operation.forward_shapes(given.shape) == shapes
    assert operation.inverse_shapes(*shapes) == (given.shape,)
    (back,) = operation.inverse(*found)
    assert back.shape == given.shape and back.tobytes() == given.tobytes()


@pytest.mark.parametrize("ours", [Q, Q_BIAS, OUT, FC1, NORM, TABLE, "decoder.finalFc.bias"])
def test_ours_is_the_usual_layout(ours):
    layout = usual_layout(ours)
    assert parse_layout(layout.text) == layout and layout_fault(layout, ours, 1) is None


@pytest.mark.parametrize(
    ("text", "ours", "count", "shape"),
    [
        ("(in, heads, dim)", Q, 1, (D, H + 1, A)),
        ("(in, heads, dim)", Q, 1, (D, H * A)),
        ("(heads parts dim, in)", Q, 3, (H * 3 * A + 1, D)),
        ("(parts out, in)", Q, 3, (H * A * 3 - 1, D)),
        ("(one)", NORM, 1, (D,)),
        ("()", NORM, 1, (1,)),
        ("(block, block)", Q, 1, (A, A + 1)),
        ("(1, rows, width)", TABLE, 1, (2, 7, D)),
    ],
)
def test_shapes_that_do_not_fit(text, ours, count, shape):
    operation = operation_of(parse_layout(text), ours, count, CONFIG)
    with pytest.raises(RuleError, match="shape"):
        operation.forward_shapes(shape)
    with pytest.raises(RuleError, match="shape"):
        operation.forward(np.zeros(shape, np.float32))


def test_what_theirs_cannot_hold_has_no_way_back():
    ours = np.arange(H * A * H * A, dtype=np.float32).reshape(H * A, -1)
    block = operation_of(parse_layout("(block, block)"), Q, 1, CONFIG)
    with pytest.raises(RuleError, match="heads have numbers of their own"):
        block.inverse(ours)
    one = operation_of(parse_layout("(one)"), NORM, 1, CONFIG)
    with pytest.raises(RuleError, match="features have numbers of their own"):
        one.inverse(np.array([0.0, -0.0] * 6, np.float32))  # equal, and not the same bytes
    twice = operation_of(parse_layout("(in, out)"), FC1, 2, CONFIG)
    with pytest.raises(RuleError, match="tied"):
        twice.inverse(ours, ours + 1)
    fused = operation_of(parse_layout("(parts out, in)"), Q, 3, CONFIG)
    with pytest.raises(RuleError, match="types"):
        fused.inverse(*(np.zeros((H * A, D), kind) for kind in ("f4", "f4", "f8")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("(out in", "is no layout"),
        ("(out,, in)", "is no layout"),
        ("out, in", "is no layout"),
        ("(outt, in)", "unknown words outt"),
        ("(in, in)", "has in twice"),
    ],
)
def test_texts_that_are_no_layout(text, told):
    with pytest.raises(UserError, match=told):
        parse_layout(text)


@pytest.mark.parametrize(
    ("text", "ours", "count"),
    [
        ("(in, out)", NORM, 1),
        ("(out)", FC1, 1),
        ("(heads, dim, in)", FC1, 1),
        ("(parts out, in)", Q, 1),
        ("(one)", FC1, 1),
        ("(block)", Q, 1),
        ("(block, block)", OUT, 1),
        ("(block, block)", Q, 3),
        ("(1, block, block)", Q, 1),
        ("(in, block)", Q, 1),
    ],
)
def test_layouts_that_a_tensor_cannot_have(text, ours, count):
    assert layout_fault(parse_layout(text), ours, count)
