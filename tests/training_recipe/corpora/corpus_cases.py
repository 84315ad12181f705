"""Small corpora in files, for the tests of reading and of holding out."""

from training_recipe.corpora.corpus import load_corpus

NUMBERED = [(f"line {n}", f"Zeile {n}") for n in range(400)]


def write_parallel(prefix, pairs):
    for side, language in enumerate(("en", "de")):
        text = "".join(f"{pair[side]}\n" for pair in pairs)
        (prefix.parent / f"{prefix.name}.{language}").write_text(text, encoding="utf-8")


def read(data, **arguments):
    return load_corpus(data, source_lang="en", target_lang="de", **arguments)


def without_overlaps(notes):
    """Notes but those on parts that share pairs, as where a test reads one file for all."""
    return [note for note in notes if not note.startswith("note:")]
