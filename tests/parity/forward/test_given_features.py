"""Features that parity generates, and those of the user's own files."""

import dataclasses

import numpy as np
import pytest
from messages import saying, says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from parity_cases import TINY, WHISPER  # noqa: E402

from parity.comparison.comparison import check_inputs, shorter_config  # noqa: E402
from parity.comparison.memory import largest_step, rows_of, source_rows, width_of  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.forward.features import read_features  # noqa: E402
from parity.forward.ids import generated  # noqa: E402
from parity.forward.measures import mask_of  # noqa: E402
from parity.forward.substeps import in_words, over_source, substeps  # noqa: E402
from transformer_spec import UserError  # noqa: E402


def saved(tmp_path, **arrays):
    path = tmp_path / "some.npz"
    np.savez(path, **arrays)
    return path


def test_generated_features_fill_every_position():
    short, long = generated(WHISPER)
    assert short.source.shape == (6, 22, 5) and long.source.shape == (1, 22, 5)
    assert short.source.dtype == np.float32 and (short.target[1] == WHISPER.pad_id).any()
    (whole, _), cut = generated(WHISPER, whole=True), generated(WHISPER, 4)[0]
    assert whole.source.shape == (3, 22, 5) and cut.source.shape == (6, 8, 5)
    assert all((row == WHISPER.pad_id).any() for row in whole.target[:2])


def test_sub_steps_of_convolutions():
    steps = substeps(WHISPER)
    assert steps[:4] == ["encoder.conv1", "encoder.conv2 input", "encoder.conv2", "encoder.embed"]
    assert all(map(over_source, steps[:4]))
    assert in_words("encoder.conv2 input") == "encoder conv2 input"
    ids = generated(WHISPER)[0]
    shapes = [mask_of(step, ids, WHISPER).shape for step in steps[:4]]
    assert shapes == [(6,), (6,), (6, 11), (6, 11)]


def test_memory_counts_frames_and_positions():
    ids = generated(WHISPER)[0]
    assert rows_of("encoder.conv1", ids, WHISPER) == 6 * 22
    assert source_rows(ids, WHISPER) == rows_of("encoder.embed", ids, WHISPER) == 6 * 11
    assert rows_of("decoder.embed", ids, WHISPER) == 6 * 11
    assert width_of("encoder.conv1", WHISPER) == 12
    assert largest_step(WHISPER, [ids]) == 8 * (6 * 11 * 2 * 2 * 12 + 4 * 6 * 22 * 12)


def test_a_file_of_features(tmp_path):
    features = np.ones((6, 9, 5), np.float32)
    np.save(tmp_path / "one.npy", features[0])
    (one,) = read_features(tmp_path / "one.npy", WHISPER)
    assert one.source.shape == (1, 9, 5) and one.target.shape == (1, 9)
    assert one.target[0, 0] == WHISPER.decoder_start_id
    target = np.arange(12).reshape(6, 2)
    batches = read_features(saved(tmp_path, features=features, target=target), WHISPER)
    assert [len(ids.source) for ids in batches] == [4, 2]
    assert (np.concatenate([ids.target for ids in batches]) == target).all()


WRONG = {
    "axes": ({"features": np.ones((2, 5, 9))}, "give floats [rows, frames, 5] (transformers has"),
    "ids": ({"features": np.ones((2, 9, 5), int)}, "features are int64 [2, 9, 5]"),
    "frames": ({"features": np.ones((1, 24, 5))}, "have 24 frames; the model takes 22"),
    "nan": ({"features": np.full((1, 3, 5), np.nan)}, "hold NaN or infinite numbers"),
    "rows": (
        {"features": np.ones((2, 3, 5)), "target": np.ones((3, 2), int)},
        "target is int64 [3, 2]; give integers [2, tokens]",
    ),
    "token": (
        {"features": np.ones((1, 3, 5)), "target": np.array([[0, 19]])},
        "target has 19; its vocabulary has 19 tokens",
    ),
    "tokens": (
        {"features": np.ones((1, 3, 5)), "target": np.ones((1, 10), int)},
        "target has 10 tokens; the model takes 9",
    ),
    "padding": (
        {"features": np.ones((2, 3, 5)), "target": np.array([[0, 1], [1, 1]])},
        "row 2 of target is padding alone",
    ),
    "name": ({"mel": np.ones(3)}, "holds mel; give an array named features"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_a_file_is_said(tmp_path, name):
    arrays, said = WRONG[name]
    with pytest.raises(UserError, check=saying(said)):
        read_features(saved(tmp_path, **arrays), WHISPER)


def test_what_is_no_file_of_arrays(tmp_path):
    (tmp_path / "text.npy").write_text("some")
    for path in (tmp_path / "text.npy", tmp_path / "none.npy"):
        with pytest.raises(UserError, check=saying(f"cannot read {path}")) as error:
            read_features(path, WHISPER)
        assert "Errno" not in str(error.value)
    np.save(tmp_path / "short.npy", np.ones((9, 5)))
    with pytest.raises(UserError, check=saying("takes 22, no fewer and no more")):
        read_features(tmp_path / "short.npy", WHISPER, whole=True)


def test_files_of_the_other_kind_are_refused():
    for config, names, kind in (
        (WHISPER, ("ids", "text"), "features"),
        (TINY, ("features", "audio"), "tokens"),
    ):
        with pytest.raises(UserError) as raised:
            check_inputs(Settings(**dict.fromkeys(names, "a")), config)
        for name in names:
            says(str(raised.value), f"--{name}: the models read {kind}")


def test_lengths_are_those_that_both_take():
    longer = dataclasses.replace(WHISPER, max_length=20, max_source_length=7)
    assert shorter_config(longer, WHISPER) == dataclasses.replace(WHISPER, max_source_length=7)
