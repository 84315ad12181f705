"""Folders whose tokenizer is missing, cut short, of another size, extended, or of another kind."""

import json
import shutil
from pathlib import Path

import pytest
from messages import faults_say, saying
from published_cases import FIRST, byte_pairs, config, model, pieces, write_json

from convert.tokenizers import read_vocabularies, tokenizer_files
from convert.tokenizers.language_codes import MBART
from transformer_spec import UserError

MODEL = "sentencepiece.bpe.model"


def marian(folder: Path) -> int:
    """Marian's files; the number of rows that a model needs."""
    folder.mkdir()
    own = model()
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(own)
    names = ["</s>", "<unk>", *pieces(own)[3:], "<pad>"]
    write_json(folder / "vocab.json", {piece: index for index, piece in enumerate(names)})
    return len(names)


def mbart(folder: Path) -> int:
    folder.mkdir()
    (folder / MODEL).write_bytes(model())
    return len(pieces(model())) + 1 + len(MBART) + 1


def m2m100(folder: Path) -> int:
    folder.mkdir()
    (folder / MODEL).write_bytes(model("bpe"))
    names = [*FIRST, *pieces(model("bpe"))[3:]]
    write_json(folder / "vocab.json", {piece: index for index, piece in enumerate(names)})
    return len(names) + 100 + 8


def bart(folder: Path) -> int:
    folder.mkdir()
    return byte_pairs(folder)


MAKERS = {"marian": marian, "mbart": mbart, "m2m100": m2m100, "bart": bart}


def read(folder, family, rows, settings=None):
    ids = {"pad_id": rows - 1, "unk_id": 1, "eos_id": 0} if family == "marian" else {}
    return read_vocabularies(folder, family, settings or {}, config(rows, **ids))


@pytest.fixture(params=list(MAKERS))
def made(request, tmp_path):
    folder = tmp_path / request.param
    return folder, request.param, MAKERS[request.param](folder)


def test_whole_folders_are_read(made):
    pair = read(*made)
    assert pair and pair[0].size <= made[2]
    assert set(pair[0].files) <= set(tokenizer_files(made[0]))


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert tokenizer_files(tmp_path) == []
    assert read_vocabularies(tmp_path, "marian", {}, config(9)) is None


def test_what_is_missing_is_said_of_all_files_at_once(made):
    folder, family, rows = made
    names = tokenizer_files(folder)
    for name in names:
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError) as error:
        read(folder, family, rows)
    assert all(f"{name} is missing" in str(error.value) for name in names if family != "m2m100")
    assert f"{names[0]} is missing" in str(error.value)


@pytest.mark.parametrize("kept", [0, 1, 7, 100, -300, -1])
def test_files_that_are_cut_short(made, kept):
    folder, family, rows = made
    for name in tokenizer_files(folder):
        whole = (folder / name).read_bytes()
        if name == "merges.txt" and kept == -1:
            continue  # a line's end is no part of the merge
        (folder / name).write_bytes(whole[:kept] if kept else b"")
        with pytest.raises(UserError, check=saying(name)):
            read(folder, family, rows)
        (folder / name).write_bytes(whole)
    assert read(folder, family, rows)


def test_every_byte_that_is_turned_is_seen_or_harmless(made):
    """No damage ends in anything but vocabularies or one clear error."""
    folder, family, rows = made
    for name in tokenizer_files(folder):
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), max(len(whole) // 40, 1)):
            damaged = bytearray(whole)
            damaged[place] ^= 0x80
            (folder / name).write_bytes(damaged)
            try:
                read(folder, family, rows)
            except UserError as error:
                assert str(folder) in str(error)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>Not found</html>", "no sentencepiece model"),
    ],
)
def test_what_downloads_leave(tmp_path, content, said):
    rows = mbart(tmp_path / "it")
    (tmp_path / "it" / MODEL).write_bytes(content)
    with pytest.raises(UserError, check=saying(MODEL, said)):
        read(tmp_path / "it", "mbart", rows)


def test_files_of_different_models(tmp_path):
    """A table of another language pair gives most pieces no id."""
    folder = tmp_path / "it"
    rows = marian(folder)
    names = ["</s>", "<unk>", *(f"{number}" for number in range(rows - 3)), "<pad>"]
    write_json(folder / "vocab.json", {piece: index for index, piece in enumerate(names)})
    with pytest.raises(UserError, check=saying("vocab.json", "source.spm", "different models")):
        read(folder, "marian", rows)


def test_pieces_that_the_model_never_gives_are_usual(tmp_path):
    folder = tmp_path / "it"
    rows = marian(folder)
    table = json.loads((folder / "vocab.json").read_text())
    table |= {f"other{number}": rows + number for number in range(3)}
    table["<pad>"], table["more"] = rows + 3, rows - 1
    write_json(folder / "vocab.json", table)
    pair = read(folder, "marian", rows + 4)
    assert pair and pair[0].size == rows + 4


def test_a_vocabulary_that_was_extended_beyond_its_model(made):
    folder, family, rows = made
    size = read(*made)[0].size
    write_json(folder / "added_tokens.json", {"<a>": rows, "<b>": rows + 1})
    with pytest.raises(UserError) as error:
        read(folder, family, rows)
    faults_say(error.value.faults, ("source", "'<a>'", 2), ("target", "'<b>'", 2))
    assert size <= rows


def test_tokens_with_one_id(made):
    folder, family, rows = made
    write_json(folder / "added_tokens.json", {"<a>": rows - 1, "<b>": rows - 1})
    with pytest.raises(UserError, check=saying("'<a>'", "'<b>'", "one id", rows - 1)):
        read(folder, family, rows)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer_config.json", "{", ["tokenizer_config.json", "cut short or damaged"]),
        ("tokenizer_config.json", "[]", ["tokenizer_config.json", "no JSON object"]),
        ("tokenizer_config.json", '{"tokenizer_class": "T5Tokenizer"}', ["T5Tokenizer"]),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}', ["'x'"]),
        ("added_tokens.json", '{"new": "7"}', ["added_tokens.json", "new", "7"]),
        ("added_tokens.json", '{"": 7}', ["added_tokens.json", "without name"]),
        ("special_tokens_map.json", '{"eos_token": "<end>"}', ["eos_token", "'<end>'"]),
    ],
)
def test_settings_of_a_tokenizer(made, name, content, said):
    folder, family, rows = made
    (folder / name).write_text(content)
    with pytest.raises(UserError) as error:
        read(folder, family, rows)
    assert all(part.strip("'") in str(error.value) for part in said)


def test_a_language_that_the_settings_name_and_the_model_lacks(tmp_path):
    rows = mbart(tmp_path / "it")
    write_json(tmp_path / "it" / "tokenizer_config.json", {"src_lang": "deu_Latn"})
    with pytest.raises(UserError, check=saying("src_lang", "'deu_Latn'", "de_DE")):
        read(tmp_path / "it", "mbart", rows)


def test_the_target_language_may_be_what_a_model_begins_with(tmp_path):
    rows = mbart(tmp_path / "it")
    german = rows - 1 - len(MBART) + MBART.index("de_DE")
    _, target = read_vocabularies(
        tmp_path / "it", "mbart", {}, config(rows, decoder_start_id=german)
    )
    assert (target.language, target.start_id) == ("de_DE", german)
    _, target = read(tmp_path / "it", "mbart", rows, {"forced_bos_token_id": german})
    assert target.language == "de_DE"


@pytest.mark.parametrize("family", ["fsmt", "blenderbot-small", "torch-nn"])
def test_families_whose_tokenizers_are_not_read(tmp_path, family):
    rows = mbart(tmp_path / "it")
    with pytest.raises(UserError, check=saying(family, "not read")):
        read(tmp_path / "it", family, rows)


def test_names_of_files(tmp_path):
    ours = [
        "source.spm", "vocab.json", "target_vocab.json", "merges.txt", "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "dict.txt",
        "dict.en.txt", MODEL, "sentence.bpe.model", "spiece.model", "vocab.spm",
        "opus.spm32k-spm32k.vocab.yml", "source.model", "spm.en.model",
    ]  # fmt: skip
    others = [
        "config.json", "generation_config.json", "model.safetensors", "pytorch_model.bin",
        "README.md", "model.npz", "train.model.pt", "training_args.bin", "conversion.json",
    ]  # fmt: skip
    for name in [*ours, *others]:
        (tmp_path / name).write_text("")
    (tmp_path / "vocab.txt").mkdir()
    assert tokenizer_files(tmp_path) == sorted(ours)
    shutil.rmtree(tmp_path / "vocab.txt")
