"""Changing number formats: rounded as NumPy does, overflow counted, integers left alone."""

import ml_dtypes
import numpy as np
import pytest
from messages import faults_say

from convert.core.numbers import as_dtype, count_not_finite, count_zeros
from convert.core.tensors import Held

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]


def integers():
    return {
        "count": np.array([2**60]), "mask": np.array([True]), "pixels": np.array([255], np.uint8),
    }  # fmt: skip


class TestAsDtype:
    @pytest.mark.parametrize("wanted", FLOATS, ids=str)
    @pytest.mark.parametrize("given", FLOATS, ids=str)
    def test_only_floats_change(self, given, wanted):
        arrays = integers() | {"w": np.arange(6).reshape(2, 3).astype(given)}
        tensors = as_dtype(Held(arrays), wanted)
        assert tensors["w"] == ((2, 3), wanted)
        assert tensors.read("w").dtype == wanted
        np.testing.assert_array_equal(tensors.read("w").astype(np.float64), arrays["w"])
        for name, array in integers().items():
            assert tensors[name].dtype == array.dtype
            assert tensors.read(name) is arrays[name]
        assert tensors.overflowed == {} and tensors.warnings() == []

    def test_an_array_that_has_the_type_is_not_copied(self):
        array = np.ones(3, np.float32)
        assert as_dtype(Held({"w": array}), np.dtype(np.float32)).read("w") is array

    def test_names_label_and_metadata_stay(self):
        source = Held({"b": np.ones(1), "a": np.ones(1)}, "file")
        source.metadata = {"format": "pt"}
        tensors = as_dtype(source, np.dtype(np.float32))
        assert (list(tensors), tensors.label, tensors.metadata) == (
            ["b", "a"], "file", {"format": "pt"},
        )  # fmt: skip

    def test_overflow_is_counted_and_said(self):
        numbers = np.array([1e5, -1e5, 65504, 65519, 65520, np.inf, -np.inf, np.nan, 0])
        tensors = as_dtype(Held({"w": numbers, "v": np.ones(2)}), np.dtype(np.float16))
        assert tensors.warnings() == []
        read = tensors.read("w")
        inf = np.inf
        expected = [inf, -inf, 65504, 65504, inf, inf, -inf, np.nan, 0]
        np.testing.assert_array_equal(read.astype(np.float64), expected)
        tensors.read("v")
        assert tensors.overflowed == {"w": 3}
        faults_say(tensors.warnings(), ("warning", 3, "w", "too large", "float16"))
        tensors.read("w")
        assert tensors.overflowed == {"w": 3}

    def test_what_became_zero_is_said(self):
        """Of weights one number in a million, as a rule; an array of such numbers is lost."""
        arrays = {
            "w": np.array([1, 6e-8, 2e-8, -2e-8, 0, -0.0, np.nan, np.inf], np.float32),
            "moments": np.full(5, 1e-9, np.float32),
            "zero": np.zeros(3, np.float32),
            "half": np.array([6e-8], np.float16),
        }
        tensors = as_dtype(Held(arrays), np.dtype(np.float16))
        assert tensors.warnings() == []
        for name in arrays:
            tensors.read(name)
        assert tensors.underflowed == {"w": 2, "moments": 5}
        warning, note = tensors.warnings()
        faults_say([warning], ("warning", "moments", "too small", "float16"))
        faults_say([note], ("note", 7, "too small"))

    @pytest.mark.parametrize("wanted", [np.float32, np.float64, ml_dtypes.bfloat16, np.float16])
    def test_zeros_are_those_of_numpy(self, wanted):
        """Also of arrays in another order of axes, which are counted where they lie."""
        numbers = np.random.default_rng(0).normal(size=(70, 1000)) * 10.0 ** -(
            np.arange(1000) ** 0.6
        )
        for array in (numbers, np.asfortranarray(numbers), numbers[:, ::3]):
            tensors = as_dtype(Held({"w": array}), np.dtype(wanted))
            read = tensors.read("w")
            assert count_zeros(read) == int(np.sum(read.astype(np.float64) == 0))
            expected = count_zeros(read) - int(np.sum(array == 0))
            assert tensors.underflowed == ({"w": expected} if expected else {})
            assert not tensors.vanished

    def test_many_arrays_are_a_few_lines(self):
        arrays = {f"w{i}": np.full(2, 1e9 if i % 2 else 1e-9) for i in range(50)}
        tensors = as_dtype(Held(arrays), np.dtype(np.float16))
        for name in arrays:
            tensors.read(name)
        assert len(tensors.warnings()) < 10

    @pytest.mark.parametrize(
        ("given", "wanted", "largest"),
        [
            (np.float64, np.float32, 1e39),
            (np.float64, ml_dtypes.bfloat16, 1e39),
            (np.float32, ml_dtypes.bfloat16, np.finfo(np.float32).max),
            (np.float32, np.float16, 1e5),
            (ml_dtypes.bfloat16, np.float16, 1e5),
        ],
    )
    def test_overflow_between_types(self, given, wanted, largest):
        numbers = np.array([largest, -largest, 1, np.nan, np.inf], np.float64).astype(given)
        tensors = as_dtype(Held({"w": numbers}), np.dtype(wanted))
        read = tensors.read("w").astype(np.float64)
        np.testing.assert_array_equal(read, [np.inf, -np.inf, 1, np.nan, np.inf])
        assert tensors.overflowed == {"w": 2}

    def test_float16_to_bfloat16_never_overflows(self):
        numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
        tensors = as_dtype(Held({"w": numbers}), BFLOAT16)
        tensors.read("w")
        assert tensors.overflowed == {}

    def test_rounds_to_nearest_ties_to_even(self):
        step = 2.0**-8
        numbers = np.array([1 + 0.5 * step, 1 + step, 1 + 3 * step, 1 + 3.01 * step], np.float32)
        read = as_dtype(Held({"w": numbers}), BFLOAT16).read("w").astype(np.float64)
        np.testing.assert_array_equal(read, [1, 1, 1 + 4 * step, 1 + 4 * step])

    def test_torch_rounds_the_same(self):
        torch = pytest.importorskip("torch")
        bits = np.random.default_rng(0).integers(0, 2**32, 10_000, np.uint32)
        numbers = bits.view(np.float32)
        numbers = numbers[np.isfinite(numbers)]
        for name in ("float16", "bfloat16", "float64"):
            expected = torch.from_numpy(numbers).to(getattr(torch, name)).double().numpy()
            dtype = BFLOAT16 if name == "bfloat16" else np.dtype(name)
            read = as_dtype(Held({"w": numbers}), dtype).read("w")
            np.testing.assert_array_equal(read.astype(np.float64), expected)

    @pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
    def test_the_wanted_type_is_a_float(self, dtype):
        with pytest.raises(ValueError, match=f"{dtype} is no floating-point type"):
            as_dtype(Held({}), np.dtype(dtype))


class TestCountNotFinite:
    @pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.complex64)], ids=str)
    def test_counts_each_kind(self, dtype):
        numbers = np.array([0, -0.0, 1, np.nan, np.inf, -np.inf, -2, np.nan]).astype(dtype)
        assert count_not_finite(numbers) == 4
        assert count_not_finite(numbers[:3]) == 0

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
    def test_every_bit_pattern(self, dtype):
        numbers = np.arange(2**16, dtype=np.uint16).view(dtype)
        expected = np.count_nonzero(~np.isfinite(numbers.astype(np.float32)))
        assert count_not_finite(numbers) == expected

    @pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
    def test_float8(self, dtype):
        numbers = np.arange(256, dtype=np.uint8).view(dtype)
        expected = np.count_nonzero(~np.isfinite(numbers.astype(np.float32)))
        assert count_not_finite(numbers) == expected > 0

    def test_integers_never_count(self):
        for array in integers().values():
            assert count_not_finite(array) == 0

    def test_more_than_one_block_and_any_layout(self):
        numbers = np.zeros((300, 700), np.float32)
        numbers[[0, 150, 299], [0, 350, 699]] = np.nan
        for view in (numbers, numbers.T, np.asfortranarray(numbers), numbers[:, None, :]):
            assert count_not_finite(view) == 3
        assert count_not_finite(numbers[1:, :]) == 2
        assert count_not_finite(np.array(np.inf)) == 1
        assert count_not_finite(np.zeros((0, 3))) == 0
