"""``train.py --init FOLDER`` of other libraries: there, on in either framework, and back."""

import json
import os

import numpy as np
import pytest
from folders_of_hub import sentences
from t5_folders import USUAL, pieces_of_t5, plain_texts, write, write_model
from training_cases import metrics, run, signal_after

from twinformer.frameworks import training_backend
from twinformer.training.evaluation.judge import Judge
from twinformer.training.starting import resume

ARGUMENTS = [
    *("--data", "pairs.tsv", "--columns", "en,de", "--device", "cpu", "--batch-tokens", "256"),
    *("--batch-shapes", "1", "--steps", "4", "--evaluate-every", "2", "--save-every", "2"),
    *("--log-every", "1", "--valid-examples", "0", "--samples", "0", "--dtype", "float64"),
    *("--peak-lr", "1e-3"),
]
LANGUAGES = {"nllb": ("eng_Latn", "deu_Latn"), "m2m100": ("en", "de")}
TARGETS = {"marian": "marian", "mbart": "mbart", "nllb": "m2m100", "t5": "t5"}
pytestmark = [
    pytest.mark.usefixtures("quick", "quick_compiling"),
    pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses"),
]


def arguments(name: str, folder, *more: str) -> list[str]:
    spoken = ["--languages", ",".join(LANGUAGES[name])] if name in LANGUAGES else []
    return ["--init", str(folder), *ARGUMENTS, *spoken, *more]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with short pairs of Multi30k, the current one."""
    pairs = zip(sentences("val", "en"), sentences("val", "de"), strict=True)
    short = [pair for pair in pairs if max(map(len, pair)) < 45][:60]
    lines = ["en\tde", *("\t".join(pair) for pair in short)]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def final_outputs(folder) -> tuple[list[str], list[str], int]:
    """Test sources, what the run's final test says to them, and how many tokens that may be."""
    from training_recipe.options.flags import parse

    started = resume(parse(["--resume", str(folder)]), "torch", training_backend("torch"))
    judge = Judge(started.backend, started.prepared, started.record.settings, lambda: None)
    found = judge.test()
    longest = min(started.prepared.config.max_length, started.prepared.longest_target)
    return [example.source for example in found.examples], found.outputs, longest


def generated(name: str, folder, texts: list[str], longest: int) -> list[str]:
    """What the library's own tokenizer, model and generate say."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    codes = LANGUAGES.get(name)
    spoken = {"src_lang": codes[0], "tgt_lang": codes[1]} if codes else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **spoken)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float64)
    forced = {"forced_bos_token_id": tokenizer.convert_tokens_to_ids(codes[1])} if codes else {}
    given = tokenizer(texts, padding=True, return_tensors="pt")
    ids = model.generate(**given, **forced, max_length=longest + 1)
    if name == "t5":  # whose sentinels are special there
        return plain_texts(tokenizer, ids)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


@pytest.fixture
def folder_of(hub_folders, tmp_path):
    """A function: the folder of a name, the Hub's or a small T5."""

    def folder(name: str):
        if name != "t5":
            return hub_folders(name)
        texts = (*sentences("val", "en"), *sentences("val", "de"))
        place = tmp_path / "t5"
        if not place.exists():
            place.mkdir()
            write_model(write(place, pieces_of_t5(texts, 300), USUAL), "t5-v1.1", 512)
        return place

    return folder


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", TARGETS)
def test_back_again_generate_says_what_the_final_test_said(name, place, folder_of) -> None:
    from convert.__main__ import main as convert

    assert run("torch", [*arguments(name, folder_of(name)), "--name", "a"]) == 0
    scores = metrics(place / "runs/a")[-1]["scores"]
    os.remove("runs/a/best")  # which may be the model as it came
    assert convert(["runs/a", "back", "--to", TARGETS[name], "--no-optimizer"]) == 0
    there, back = ({p.name for p in f.iterdir()} for f in (folder_of(name), place / "back"))
    assert back - there == {"conversion.json"} and there <= back
    texts, outputs, longest = final_outputs(place / "runs/a")
    assert len(texts) == 4 and any(outputs)
    assert generated(name, place / "back", texts, longest) == outputs
    assert scores.keys() == {"BLEU", "chrF"}


@pytest.mark.thorough
@pytest.mark.usefixtures("both_frameworks", "float64")
def test_on_in_the_other_framework(place, hub_folders) -> None:
    """The languages, the search and the lookup without a gradient are the run's."""
    begin = arguments("nllb", hub_folders("nllb"), "--test-examples", "0")
    assert run("torch", [*begin, "--name", "whole"]) == 0
    assert run("torch", [*begin, "--name", "a"], signal_after(2)) == 130
    assert run("jax", ["--resume", "runs/a"]) == 0
    ours, expected = metrics(place / "runs/a"), metrics(place / "runs/whole")
    assert [m["step"] for m in ours] == [m["step"] for m in expected]
    losses = [[m["loss"] for m in found if "loss" in m] for found in (ours, expected)]
    assert len(losses[0]) == 7 and np.abs(np.subtract(*losses)).max() <= 1e-9
    settings = json.loads((place / "runs/a/settings.json").read_text())["settings"]
    assert settings["languages"] == ["eng_Latn", "deu_Latn"]
    assert settings["padding_gradient"] is False


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("nllb", [], "need a language"),
        ("nllb", ["--languages", "eng_Latn,de"], "near ones are deu_Latn"),
        ("m2m100", ["--languages", "xx,yy"], "no language 'yy'"),
        ("marian", ["--languages", "en,de"], "none to choose"),
        ("marian", ["--bpe-dropout", "0.1"], "no plain model of algorithm bpe"),
        ("marian", ["--max-length", "99", "--num-heads", "2"], "leave out --num-heads"),
    ],
)
def test_what_a_folder_cannot_do_is_said(name, more, words, place, hub_folders, capsys) -> None:
    begin = ["--init", str(hub_folders(name)), *ARGUMENTS, *more, "--out", "a"]
    assert run("torch", begin) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not os.path.exists("a")


def test_a_folder_without_a_tokenizer_is_said(place, hub_folders, capsys) -> None:
    folder = hub_folders.copy("marian", place / "mine")
    for name in ("source.spm", "target.spm", "vocab.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "special_tokens_map.json").unlink()
    assert run("torch", ["--init", "mine", *ARGUMENTS, "--out", "a"]) == 2
    assert "no tokenizer" in capsys.readouterr().err and not os.path.exists("a")
