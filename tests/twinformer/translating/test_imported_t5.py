"""T5 folders read texts, gaps and languages, say what their library says, and go back whole."""

import json
import os
import shutil
import warnings

import pytest
from messages import says
from published_cases import TEXTS
from t5_folders import (
    MODEL,
    USUAL,
    of_madlad,
    pieces_of_t5,
    plain_texts,
    write,
    write_code,
    write_model,
)

pytest.importorskip("torch")
pytest.importorskip("jax")

import twinformer  # noqa: E402
from convert.__main__ import main as convert  # noqa: E402

OF_CODE = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
OF_MADLAD = {"pad_token_id": 1, "eos_token_id": 2}
MADLAD = {**USUAL, "extra_ids": 0, "additional_special_tokens": [], "pad_token": "<s>"}
GAPPED = ("the cat <extra_id_0> mat", "a dog<extra_id_1> the <extra_id_0> grass", *TEXTS[:3])
SHORT = 12


def write_kind(kind: str, folder):
    """A folder of a kind: tokenizer and random weights."""
    folder.mkdir()
    if kind == "t5":
        return write_model(write(folder, pieces_of_t5(), USUAL), "t5-v1.1", 256)
    if kind == "byt5":
        about = {"tokenizer_class": "ByT5Tokenizer"}
        return write_model(write(folder, None, about), "deep", 384)
    if kind == "madlad":
        pieces = of_madlad(60, byte_fallback=False)  # the library shows bytes by their names
        return write_model(write(folder, pieces, MADLAD), "t5-v1.1", 64, **OF_MADLAD)
    return write_model(folder, "t5", write_code(folder), **OF_CODE)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A function: the folder of a kind, made once."""
    made = {}

    def folder(kind: str):
        if kind not in made:
            made[kind] = write_kind(kind, tmp_path_factory.mktemp("t5") / kind)
        return made[kind]

    return folder


def said_by_library(folder, texts) -> list[str]:
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    return plain_texts(tokenizer, model.generate(**batch, max_length=SHORT + 1))


@pytest.mark.parametrize("kind", ["t5", "byt5", "madlad", "codet5"])
def test_texts_in_texts_out(folder_of, tmp_path, kind):
    """From the library's folder, and from ours that was made of it."""
    folder = folder_of(kind)
    texts = [f"<2de> {text}" for text in TEXTS] if kind == "madlad" else GAPPED
    wanted = said_by_library(folder, texts)
    assert len(set(wanted)) > 1
    assert convert([str(folder), str(tmp_path / "ours"), "--to", "torch"]) == 0
    for place in (folder, tmp_path / "ours"):
        translate = twinformer.Translator(place, backend="torch")
        assert [found.text for found in translate(texts, max_length=SHORT)] == wanted


@pytest.mark.parametrize("kind", ["t5", "byt5"])
def test_gaps_from_the_command_line(folder_of, call, kind):
    status, out, said = call(folder_of(kind), *GAPPED, "--max-length", SHORT)
    assert (status, "read as text" in said) == (0, False)
    wanted = said_by_library(folder_of(kind), GAPPED)
    assert out == [line.strip() for line in wanted]
    assert any("<extra_id_" in line for line in out)


def test_the_language_of_the_output_as_a_flag(folder_of, call):
    folder, more = folder_of("madlad"), ("--max-length", SHORT)
    told = call(folder, f"<2fr> {TEXTS[0]}", *more)
    assert told[0] == 0
    assert call(folder, TEXTS[0], "--languages", "fr", *more)[1] == told[1]
    status, _, said = call(folder, TEXTS[0], *more)
    assert status == 2
    says(said, "language", "de, fr")


@pytest.mark.parametrize("kind", ["t5", "byt5", "madlad", "codet5"])
def test_every_file_goes_back_byte_for_byte(folder_of, tmp_path, kind):
    folder = folder_of(kind)
    if kind == "t5":
        import transformers

        folder = shutil.copytree(folder, tmp_path / "whole")
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "more")
        shutil.copy(tmp_path / "more/tokenizer.json", folder)
        names = {f"{role}_token": f"<{role}>" for role in ("pad", "unk")}
        (folder / "special_tokens_map.json").write_text(json.dumps(names))
    assert convert([str(folder), str(tmp_path / "ours"), "--to", "flax"]) == 0
    assert convert([str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "t5"]) == 0
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes(), path.name


def test_byt5_that_only_its_config_names(folder_of, tmp_path, capsys, call):
    folder = shutil.copytree(folder_of("byt5"), tmp_path / "bare")
    (folder / "tokenizer_config.json").unlink()
    content = json.loads((folder / "config.json").read_text())
    named = content | {"tokenizer_class": "ByT5Tokenizer"}
    (folder / "config.json").write_text(json.dumps(named))
    assert call(folder, "a", "--max-length", 4)[0] == 0
    assert convert([str(folder), str(tmp_path / "ours"), "--to", "torch"]) == 0
    assert convert([str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "t5"]) == 0
    assert "tokenizer" not in capsys.readouterr().out
    assert json.loads((tmp_path / "back/config.json").read_text()) == named


class TestWrongInput:
    @pytest.fixture
    def folder(self, folder_of, tmp_path):
        return shutil.copytree(folder_of("t5"), tmp_path / "t5")

    def test_more_tokens_than_rows(self, folder, call):
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(USUAL | {"extra_ids": 300}))
        status, _, said = call(folder, "a cat")
        assert status == 2
        says(said, "256 rows", "<extra_id_", "extended")

    def test_no_pieces_and_no_tokenizer_json(self, folder, call):
        (folder / MODEL).unlink()
        status, _, said = call(folder, "a cat")
        assert status == 2
        says(said, f"{MODEL} is missing", "tokenizer.json")

    def test_pieces_that_are_cut_short(self, folder, call):
        os.truncate(folder / MODEL, 500)
        status, _, said = call(folder, "a cat")
        assert status == 2
        says(said, MODEL, "cut short")

    def test_another_model_s_special_ids(self, folder, call):
        (folder / MODEL).write_bytes(of_madlad())
        status, _, said = call(folder, "a cat")
        assert status == 2
        says(said, "eos_id is 2", "1 in the model")
