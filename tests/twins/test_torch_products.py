"""Products of float32 numbers by oneDNN, as on processors that are not Intel's: right in every way.

Float64 judges; each product is asked for on every processor that has oneDNN.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
products = pytest.importorskip("torch_transformer.products")
loss = pytest.importorskip("torch_transformer.loss")

pytestmark = pytest.mark.skipif(products.ONEDNN is None, reason="this PyTorch has no oneDNN")
SHAPES = [(60, 24, 7), (60, 7, 24), (60, 16, 16), (3, 8, 64), (1, 64, 8)]


LIMITS = {name: getattr(products, name) for name in ("LEAST", "LEAST_TRAINED", "FEWEST")}


@pytest.fixture(autouse=True)
def of_every_size(monkeypatch) -> None:
    for name in LIMITS:
        monkeypatch.setattr(products, name, 0)


@pytest.fixture(params=[True, False], ids=["wide", "narrow"])
def by_onednn(request, monkeypatch) -> None:
    monkeypatch.setattr(products, "SLOW_BLAS", True)
    monkeypatch.setattr(products, "WIDE", request.param)


@pytest.fixture
def count(monkeypatch) -> list:
    """One entry for each product by oneDNN."""
    calls, real = [], products.ONEDNN
    monkeypatch.setattr(products, "ONEDNN", lambda *given: calls.append(0) or real(*given))
    return calls


def factors(N: int, I: int, O: int):  # noqa: E741
    draw = np.random.default_rng(N + I)
    shapes = (2, N, I), (O, I), (O,), (2, N, O)
    return [torch.from_numpy(draw.normal(size=shape).astype(np.float32)) for shape in shapes]


def gradients(call, given, upstream):
    leaves = [x.detach().clone().requires_grad_() for x in given]
    call(*leaves).backward(upstream)
    return [x.grad for x in leaves]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_gradients_are_those_of_float64(by_onednn, count, shape, biased) -> None:
    x, weight, bias, upstream = factors(*shape)
    given = [x, weight, bias] if biased else [x, weight]

    def call(x, weight, bias=None):
        return products.linear(x, weight, bias)

    found = gradients(call, given, upstream)
    assert len(count) >= 2
    expected = gradients(call, [part.double() for part in given], upstream.double())
    for mine, right in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32 and mine.shape == right.shape
        assert (mine - right).abs().max() <= 1e-5 * right.abs().max()
    value = call(*given)
    assert (
        value - call(*[part.double() for part in given])
    ).abs().max() <= 1e-5 * value.abs().max()


def test_only_what_is_wanted_is_computed(by_onednn, count) -> None:
    x, weight, bias, upstream = factors(60, 7, 64)
    products.linear(x, weight.requires_grad_(), bias).backward(upstream)
    assert len(count) == 2 and x.grad is None and bias.grad is None
    found = weight.grad
    weight.grad = None
    torch.nn.functional.linear(x, weight, bias).backward(upstream)
    torch.testing.assert_close(found, weight.grad)


def test_a_gradient_of_a_gradient(by_onednn, count) -> None:
    """As for a penalty on the gradient's norm."""

    def penalty(product, *given):
        x, weight, bias = (part.detach().clone().requires_grad_() for part in given)
        (slope,) = torch.autograd.grad(
            product(x, weight, bias).square().sum(), x, create_graph=True
        )
        return torch.autograd.grad(slope.square().sum(), (x, weight))

    x, weight, bias, _ = factors(12, 5, 6)
    found = penalty(products.linear, x, weight, bias)
    assert count
    for mine, right in zip(
        found, penalty(torch.nn.functional.linear, x, weight, bias), strict=True
    ):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.(script|trace|trace_method). is deprecated")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_it_cannot_multiply_is_left_to_torch(by_onednn, count, monkeypatch) -> None:
    x, weight, bias, _ = factors(12, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert products.linear(x, weight, bias).dtype == torch.bfloat16
    products.linear(x.double(), weight.double(), bias.double())
    products.linear(x.to("meta"), weight.to("meta"), bias.to("meta"))
    torch.func.vmap(lambda row: products.linear(row, weight, bias))(x)
    torch.func.jvp(lambda x: products.linear(x, weight, bias), (x,), (x,))
    torch.func.grad(lambda weight: products.linear(x, weight, bias).sum())(weight)
    torch.func.grad(lambda bias: products.linear(x, weight, bias).sum())(bias)
    torch.func.vmap(lambda scale: products.linear(x, weight, bias) * scale)(bias)
    torch.func.jvp(lambda bias: products.linear(x, weight, bias), (bias,), (bias,))
    products.linear(x, weight.to_sparse(), None)
    products.linear(torch.nested.nested_tensor([x[0], x[1]]), weight, bias)
    torch.jit.trace(lambda x: products.linear(x, weight, bias), x, check_trace=False)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    products.linear(x, weight, bias)
    assert not count


def test_operations_are_counted_as_torch_has_them(by_onednn) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    x, weight, bias, _ = factors(12, 5, 6)
    with FlopCounterMode(display=False) as counted:
        products.linear(x, weight, bias)
    assert counted.get_total_flops() == 2 * 24 * 5 * 6


EMPTY = [((0, 5), (6, 5)), ((2, 0, 5), (6, 5)), ((3, 0), (6, 0)), ((3, 5), (0, 5))]


@pytest.mark.parametrize(("left", "right"), [*EMPTY, ((5,), (6, 5)), ((3, 5), (5,))])
def test_shapes_that_onednn_does_not_take(by_onednn, left, right) -> None:
    def call(product):
        x, weight = (torch.ones(shape, requires_grad=True) for shape in (left, right))
        y = product(x, weight, None)
        return y, *torch.autograd.grad(y.sum(), (x, weight))

    torch.testing.assert_close(call(products.linear), call(torch.nn.functional.linear))


@pytest.mark.parametrize("wanted", [True, False])
def test_a_bias_with_gaps_or_of_one_number(by_onednn, wanted: bool) -> None:
    """oneDNN would read the numbers that lie beside it."""
    x, weight, _, _ = factors(12, 5, 6)
    with torch.set_grad_enabled(wanted):
        for bias in (torch.arange(12.0)[::2], torch.ones(1).expand(6), torch.ones(()), x[0, 0, :1]):
            expected = torch.nn.functional.linear(x, weight, bias)
            torch.testing.assert_close(products.linear(x, weight, bias), expected)


def test_weights_with_gaps_are_put_together(by_onednn, monkeypatch) -> None:
    """And gradients of a sum, whose numbers are one: oneDNN would take seconds."""
    seen, real = [], products.ONEDNN
    monkeypatch.setattr(products, "ONEDNN", lambda *given: seen.append(given[1]) or real(*given))
    x, whole, bias, _ = factors(12, 10, 6)
    for weight in (
        whole[:, :5],
        whole[:, ::2],
        whole[::2],
        whole[:1].expand(6, 10),
        whole[:, :6].T,
    ):
        weight = weight.detach().requires_grad_()
        part, by = x[..., : weight.shape[1]], bias[: len(weight)]
        found = torch.autograd.grad(products.linear(part, weight, by).sum(), weight)
        expected = torch.autograd.grad(torch.nn.functional.linear(part, weight, by).sum(), weight)
        torch.testing.assert_close(found, expected)
        assert found[0].is_contiguous()
    assert len(seen) >= 5 and all(w.is_contiguous() or w.T.is_contiguous() for w in seen)


def test_gradients_of_many_at_once(by_onednn) -> None:
    """As a Jacobian asks for them, whose gradients come in a wrapper."""

    def jacobian(product):
        leaves = [part.detach().clone().requires_grad_() for part in factors(3, 5, 6)[:3]]
        y = product(*leaves)
        many = torch.eye(y.numel()).reshape(-1, *y.shape)
        return torch.autograd.grad(y, leaves, many, is_grads_batched=True)

    torch.testing.assert_close(jacobian(products.linear), jacobian(torch.nn.functional.linear))


def test_only_what_a_gradient_needs_is_kept(by_onednn) -> None:
    """Beside frozen weights the input may be changed, and is not held."""
    x, weight, bias, _ = factors(12, 5, 6)
    y = products.linear(x, weight, bias.requires_grad_())
    x += 1
    weight += 1
    y.sum().backward()
    assert (bias.grad == 24).all()


def test_the_loss_without_numbers_and_twice_differentiated(by_onednn) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    given = [torch.ones(4, 3, requires_grad=True), torch.ones(5, 3), None]
    targets = torch.tensor([1, 0, 2, 0])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = [None if part is None else mode.from_tensor(part) for part in given]
        assert loss.smoothed_cross_entropy(*fake, mode.from_tensor(targets), 0, 0.1).shape == ()
    found = loss.smoothed_cross_entropy(*given, targets, 0, 0.1)
    with pytest.raises(RuntimeError, match="no gradient of its gradient"):
        found.backward(create_graph=True)


@pytest.mark.parametrize(
    ("shape", "forward", "trained"),
    [((1, 64, 64), 0, 0), ((30, 128, 256), 1, 0), ((8, 512, 2048), 1, 0), ((100, 256, 256), 1, 2)],
)
def test_small_products_are_left_to_the_blas(
    by_onednn, count, monkeypatch, shape, forward, trained
) -> None:
    """They take it less time than oneDNN takes to begin (docs/log.md)."""
    for name, value in LIMITS.items():
        monkeypatch.setattr(products, name, value)
    x, weight, bias, upstream = factors(*shape)
    with torch.no_grad():
        products.linear(x, weight, bias)
    assert len(count) == forward
    count.clear()
    gradients(products.linear, [x, weight, bias], upstream)
    assert len(count) == (trained + products.WIDE if trained else 0)


def test_an_intel_processor_keeps_its_blas(count, monkeypatch) -> None:
    monkeypatch.setattr(products, "SLOW_BLAS", False)
    x, weight, bias, _ = factors(12, 5, 6)
    products.linear(x, weight.requires_grad_(), bias).sum().backward()
    with torch.no_grad():
        products.linear(x, weight, bias)
        assert not count
        products.linear(x, weight, bias, quick=True)
    assert len(count) == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("vendor_id\t: GenuineIntel\nmodel name\t: Xeon\n", "GenuineIntel"),
        ("vendor_id\t: AuthenticAMD\n", "AuthenticAMD"),
        ("CPU implementer\t: 0x41\n", ""),
    ],
)
def test_whose_processor_it_is(monkeypatch, said: str, expected: str) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: said)
    assert products.vendor() == expected


def test_whose_processor_it_is_elsewhere(monkeypatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", "AMD64 Family 25 Model 97, AuthenticAMD")
    assert products.vendor() == "AuthenticAMD"
    monkeypatch.delenv("PROCESSOR_IDENTIFIER")
    assert products.vendor() == ""


@pytest.mark.parametrize("words", [9, 300])
@pytest.mark.parametrize("padded", [0, 5, 40])
def test_the_loss_and_its_gradients(by_onednn, count, words: int, padded: int) -> None:
    """Padding has no loss and no gradient, whether its rows are left out or all are padding."""
    draw = np.random.default_rng(words + padded)
    states, weight, bias = (
        torch.from_numpy(draw.normal(size=shape).astype(np.float32))
        for shape in ((40, 12), (words, 12), (words,))
    )
    targets = torch.from_numpy(draw.integers(1, words, 40))
    targets[torch.from_numpy(draw.permutation(40)[:padded])] = 0

    def call(states, weight, bias):
        return loss.smoothed_cross_entropy(states, weight, bias, targets, 0, 0.1)

    one = torch.ones(())
    found = gradients(call, [states, weight, bias], one)
    wide = [part.double() for part in (states, weight, bias)]
    kept = targets != 0

    def plain(states, weight, bias):
        logits = states[kept] @ weight.T + bias
        return torch.nn.functional.cross_entropy(
            logits, targets[kept], label_smoothing=0.1, reduction="sum"
        )

    for mine, right in zip(found, gradients(plain, wide, one.double()), strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=1e-4, atol=1e-5)
    assert (found[0][~kept] == 0).all()
    torch.testing.assert_close(call(states, weight, bias).double(), plain(*wide), rtol=1e-5, atol=0)
    assert count
