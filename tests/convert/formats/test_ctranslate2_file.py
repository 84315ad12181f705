"""CTranslate2's model.bin: what is read of it, and every way in which it can be damaged."""

from __future__ import annotations

import struct

import ml_dtypes
import numpy as np
import pytest
from ctranslate2_bytes import model_bin, text, variable
from messages import saying

from convert.core.tensors import header_of
from convert.formats.ctranslate2 import open_ctranslate2, specification_in
from convert.formats.kinds import container_of
from transformer_spec import UserError

F32 = np.arange(6, dtype=np.float32).reshape(2, 3)
ARRAYS = {
    "a/weight": F32,
    "b/half": np.array([1.5, -0.0, np.nan], np.float16),
    "c/brain": np.array([[1.5], [-2.0]], ml_dtypes.bfloat16),
    "d/heads": np.array(6, np.int16),
    "e/flag": np.array(-1, np.int8),
    "f/scale": np.array(0.5, np.float32),
}
ROWS = np.array([[127, -64, 3], [-127, 0, 1]], np.int8)
SCALES = np.array([254.0, 3.0], np.float32)


@pytest.fixture
def opened(tmp_path):
    def open_bytes(content: bytes):
        path = tmp_path / "model.bin"
        path.write_bytes(content)
        return open_ctranslate2(path)

    return open_bytes


class TestWhole:
    def test_arrays_scalars_and_aliases(self, opened):
        file = opened(model_bin(ARRAYS, {"g/other": "a/weight"}))
        assert file.scalars == {"d/heads": 6, "e/flag": -1, "f/scale": 0.5}
        assert set(file) == {"a/weight", "b/half", "c/brain", "g/other"} and file.notes == []
        for name in ("a/weight", "b/half", "c/brain"):
            found = file.read(name)
            assert (found.shape, found.dtype) == file[name] == header_of(ARRAYS[name])
            assert found.tobytes() == ARRAYS[name].tobytes()
        assert file["g/other"] == file["a/weight"] and np.array_equal(file.read("g/other"), F32)
        assert dict(file.aliases) == {"g/other": "a/weight"}

    def test_whole_numbers_are_divided_by_the_scale_of_their_row(self, opened):
        conv = np.arange(12, dtype=np.int8).reshape(2, 2, 3)
        held = {"x": ROWS, "x_scale": SCALES, "y": conv, "y_scale": SCALES[::-1].copy()}
        file = opened(model_bin(held, {"z": "x"}))
        assert set(file) == {"x", "y", "z"} and file["x"] == ((2, 3), np.float32)
        expected = np.array([[0.5, -64 / 254, 3 / 254], [-127 / 3, 0, 1 / 3]], np.float32)
        assert np.array_equal(file.read("x"), expected)
        assert np.array_equal(file.read("z"), expected)  # CTranslate2 aliases no scales
        assert np.array_equal(file.read("y")[1], conv[1] / np.float32(254))
        (note,) = file.notes
        assert "2 of 2 tensors are int8" in note and "1/254" in note

    def test_one_scale_of_int16_is_for_all(self, opened):
        held = {"x": np.array([[1024], [-512]], np.int16), "x_scale": np.array(2048, np.float32)}
        file = opened(model_bin(held))
        assert np.array_equal(file.read("x"), np.array([[0.5], [-0.25]], np.float32))
        assert file.scalars == {} and "int16" in file.notes[0] and "1/2048" in file.notes[0]

    def test_it_is_known_by_its_content(self, tmp_path):
        path = tmp_path / "any.name"
        path.write_bytes(model_bin(ARRAYS))
        assert container_of(path) == "ctranslate2"
        assert specification_in(path.read_bytes()[:512]) == "WhisperSpec"
        path.write_bytes(model_bin(ARRAYS, specification="TransformerSpec"))
        with pytest.raises(UserError) as refused:
            container_of(path)
        told = str(refused.value)
        assert "CTranslate2 (TransformerSpec)" in told and "WhisperSpec" in told
        assert "\n" not in told and "give the checkpoint that it was made from" in told


WHOLE = model_bin(ARRAYS, {"g": "a/weight"})
HEAD = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<I", 3)
ONE, NONE = struct.pack("<I", 1), struct.pack("<I", 0)
DAMAGES = {
    "it is of binary version 5, and 6 is read": model_bin(ARRAYS, version=5),
    "3 bytes are left over": WHOLE + b"abc",
    "number format is 6": HEAD + ONE + variable("a", F32, code=6) + NONE,
    "'a' comes twice": HEAD + struct.pack("<I", 2) + variable("a", F32) * 2 + NONE,
    "'a/weight' comes twice": model_bin(ARRAYS, {"a/weight": "b/half"}),
    "'g' stands for 'h', which is not there": model_bin(ARRAYS, {"g": "h"}),
    "needs 24 bytes; it has 12": HEAD + ONE + variable("a", F32).replace(
        struct.pack("<I", 24), struct.pack("<I", 12)) + NONE,
    "there is no name": HEAD + ONE + struct.pack("<H", 2) + b"ab" + bytes(20),
    "it has 200 axes": HEAD + ONE + text("a") + b"\xc8" + bytes(2000),
    "larger than any memory": HEAD + ONE + text("a") + b"\x04" + b"\xff" * 16 + bytes(9),
    "there are no scales of it": model_bin({"x": ROWS}),
    "its scales are float32 [3]": model_bin({"x": ROWS, "x_scale": np.ones(3, np.float32)}),
    "its scales are float16 [2]": model_bin({"x": ROWS, "x_scale": np.ones(2, np.float16)}),
}  # fmt: skip


class TestDamaged:
    @pytest.mark.parametrize("said", DAMAGES, ids=lambda said: said[:30])
    def test_each_damage_is_one_error(self, opened, said):
        with pytest.raises(UserError, check=saying(said, "model.bin")):
            opened(DAMAGES[said])

    def test_cut_short_anywhere(self, opened):
        for size in range(20, len(WHOLE)):
            with pytest.raises(UserError, check=saying("truncated")):
                opened(WHOLE[:size])

    @pytest.mark.parametrize("scale", [0.0, np.nan, -1.0, np.inf, 1e-38])
    def test_scales_that_are_none(self, opened, scale):
        held = {"x": ROWS, "x_scale": np.array([scale, 1.0], np.float32)}
        file = opened(model_bin(held))
        with pytest.raises(UserError, check=saying("a scale of 'x' is not above 0")):
            file.read("x")

    def test_a_file_cut_after_it_was_opened(self, opened, tmp_path):
        file = opened(WHOLE)
        (tmp_path / "model.bin").write_bytes(WHOLE[:60])
        with pytest.raises(UserError, check=saying("truncated")):
            file.read("a/weight")

    def test_bytes_changed_anywhere(self, opened):
        """What is not an error of ours is read."""
        draw, errors = np.random.default_rng(0), 0
        whole = np.frombuffer(model_bin(ARRAYS | {"x": ROWS, "x_scale": SCALES}), np.uint8)
        for _ in range(300):
            changed = whole.copy()
            changed[draw.integers(len(whole), size=2)] = draw.integers(256, size=2)
            try:
                opened(changed.tobytes()).read_all()
            except UserError:
                errors += 1
        assert 100 < errors < 300
