"""Models of other libraries, exported to CTranslate2, translate text there as they do here.

Greedily: where a beam ends is not the same in both, and peaked random weights show it.
"""

from __future__ import annotations

import json

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
    "mbart": "",
    "mbart50-v5": "",
}


@pytest.fixture(scope="module")
def exported(hub_folders, tmp_path_factory):
    """By folder: its texts, the export, and the lines of the code that the export prints."""
    place, texts = tmp_path_factory.mktemp("exports"), sentences("test_2016_flickr", "en")[:6]
    jobs = [
        (str(hub_folders(name)), str(place / name), [begun + text for text in texts])
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


def test_its_vocabularies_are_the_pieces(exported, hub_folders):
    from pathlib import Path

    folder = Path(exported["marian"][0][1])
    pieces = json.loads((folder / "shared_vocabulary.json").read_text())
    table = json.loads((hub_folders("marian") / "vocab.json").read_text())
    assert {piece: number for number, piece in enumerate(pieces)} == table
