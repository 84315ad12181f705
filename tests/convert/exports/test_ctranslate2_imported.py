"""Models of other libraries, exported to CTranslate2, translate text there as they do here.

Greedily: where a beam ends is not the same in both, and peaked random weights show it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from folders_of_hub import sentences

torch = pytest.importorskip("torch")

from ctranslate2_apart import ask  # noqa: E402

import twinformer  # noqa: E402

BEGUN = {
    "marian": "",
    "marian-multi": ">>deu<< ",
    "marian-separate": "",
    "bart": "",
    "bart-started": "",
    "mbart": "",
    "mbart50-v5": "",
}


START = 77


def folder_of(name, hub_folders, place: Path) -> Path:
    """A folder of the Hub, or a copy of it whose search begins with a token of its own."""
    begun, started, _ = name.partition("-started")
    if not started:
        return hub_folders(name)
    copy = shutil.copytree(hub_folders(begun), place / f"{name}-in")
    settings = json.loads((copy / "generation_config.json").read_text())
    settings["decoder_start_token_id"] = START
    (copy / "generation_config.json").write_text(json.dumps(settings))
    return copy


@pytest.fixture(scope="module")
def exported(hub_folders, tmp_path_factory):
    """By folder: its texts, the export, and the lines of the code that the export prints."""
    place, texts = tmp_path_factory.mktemp("exports"), sentences("test_2016_flickr", "en")[:6]
    jobs = [
        (
            str(folder_of(name, hub_folders, place)),
            str(place / name),
            [begun + text for text in texts],
        )
        for name, begun in BEGUN.items()
    ]
    lines = ask("export_and_follow_greedily", jobs)
    return {name: (job, said) for name, job, said in zip(BEGUN, jobs, lines, strict=True)}


@pytest.mark.parametrize("name", BEGUN)
def test_text_in_text_out(exported, hub_folders, name):
    (source, folder, texts), said = exported[name]
    translate = twinformer.Translator(source, backend="torch")
    longest = translate.config.max_length
    found = translate(texts, rule="exact", beam=1, length_penalty=1.0, max_length=longest)
    # BART's bytes may be line breaks.
    wanted = "\n".join(one.text for one in found).split("\n")
    assert [line.strip() for line in said] == [line.strip() for line in wanted]
    assert len(set(said)) > 1


def test_the_decoder_starts_as_the_search_does(exported):
    plain, started = (Path(exported[name][0][1]) for name in ("bart", "bart-started"))
    (usual, vocabulary), (start, _) = (
        (
            json.loads((folder / "config.json").read_text())["decoder_start_token"],
            json.loads((folder / "shared_vocabulary.json").read_text()),
        )
        for folder in (plain, started)
    )
    assert start == vocabulary[START] != usual


def test_its_vocabularies_are_the_pieces(exported, hub_folders):
    folder = Path(exported["marian"][0][1])
    pieces = json.loads((folder / "shared_vocabulary.json").read_text())
    table = json.loads((hub_folders("marian") / "vocab.json").read_text())
    assert {piece: number for number, piece in enumerate(pieces)} == table
