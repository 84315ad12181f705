"""Small corpora in files, for the tests of reading and of holding out."""

import pytest

from training_recipe.corpora.corpus import load_corpus

NUMBERED = [(f"line {n}", f"Zeile {n}") for n in range(400)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, the current one; a test module takes it by assignment."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_parallel(prefix, pairs):
    for side, language in enumerate(("en", "de")):
        text = "".join(f"{pair[side]}\n" for pair in pairs)
        (prefix.parent / f"{prefix.name}.{language}").write_text(text, encoding="utf-8")


def read(data, **arguments):
    return load_corpus(data, source_lang="en", target_lang="de", **arguments)
