"""What is published under the names of corpora: every part has its files, of known hashes."""

from pathlib import Path

import pytest

from training_recipe.corpora.named import NAMED_CORPORA


@pytest.mark.parametrize("corpus", NAMED_CORPORA.values(), ids=NAMED_CORPORA)
def test_every_part_has_its_files(corpus):
    parts = [part for part in (corpus.train, corpus.valid, corpus.test) if part is not None]
    sides = [f".{language}" for language in corpus.languages if language] or [""]
    needed = {part + side for part in parts for side in sides}
    assert {file.removesuffix(".gz") for file in corpus.files} == needed
    for file, published in corpus.files.items():
        assert published.url.startswith("https://") and Path(file).name == file
        assert len(bytes.fromhex(published.sha256)) == 32
