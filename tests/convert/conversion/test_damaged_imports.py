"""Records of ours that are damaged or say what nobody wrote: one error or one warning."""

import json

import pytest
from messages import says

from convert.conversion import ConversionRequest, convert
from convert.conversion.opening import open_model
from transformer_spec import UserError


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"family": ["marian"]}, "its family are not"),
        ({"settings": 7}, "its settings are not"),
        ({"wrapper": None}, "its wrapper are not"),
        ({"format_version": 2}, "format_version 1"),
        ({"optimizer_groups": [[5, {}]]}, "its optimizer_groups are not"),
        ({"optimizer_groups": [[[], None]]}, "its optimizer_groups are not"),
    ],
)
def test_an_origin_that_nobody_wrote(hub_folders, tmp_path, changes, fault) -> None:
    convert(ConversionRequest(hub_folders("marian"), tmp_path / "ours", to="torch"))
    place = tmp_path / "ours/origin.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))
    with pytest.raises(UserError, match=r"origin\.json is damaged") as caught:
        convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    assert fault in str(caught.value)
    assert not (tmp_path / "back").exists()


def test_a_damaged_tokenizer_goes_back_with_a_warning(hub_folders, tmp_path) -> None:
    convert(ConversionRequest(hub_folders("marian"), tmp_path / "ours", to="torch"))
    (tmp_path / "ours/vocabulary/source.spm").write_bytes(b"")
    done = convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    says(done.notes, "written as they are", "source.spm is not the file it was saved with")


def test_a_frame_of_another_model(hub_folders, tmp_path) -> None:
    convert(ConversionRequest(hub_folders("marian"), tmp_path / "ours", to="torch"))
    place = tmp_path / "ours/vocabulary/source.json"
    frame = {"before": [99_999], "after": [0]}
    place.write_text(json.dumps(json.loads(place.read_text()) | {"frame": frame}))
    with pytest.raises(UserError, match="source vocabulary puts 99,999 around a text"):
        open_model(tmp_path / "ours").text()
