"""A run of train.py, exported: CTranslate2 translates text as translate.py does."""

from __future__ import annotations

import os
import random
import re

import numpy as np
import pytest
from messages import says

torch = pytest.importorskip("torch")

from ctranslate2_apart import ask  # noqa: E402
from training_cases import run as train_run  # noqa: E402
from training_cases import write_words  # noqa: E402

import torch_transformer  # noqa: E402
from torch_transformer.decoding import decode  # noqa: E402
from training_recipe.batching.batches import encode_sources  # noqa: E402
from training_recipe.searching.search import Search  # noqa: E402
from training_recipe.text.model_vocabularies import load_vocabularies  # noqa: E402
from twinformer.training import loop  # noqa: E402

SETTINGS = [
    *("--data", "words.tsv", "--columns", "word,sound", "--preset", "tiny", "--name", "spelling"),
    *("--source-vocabulary", "characters", "--target-vocabulary", "whitespace"),
    *("--hidden-dim", "16", "--inner-dim", "32", "--num-heads", "2", "--max-length", "24"),
    *("--batch-tokens", "512", "--batch-shapes", "1", "--peak-lr", "0.02", "--warmup-steps", "20"),
    *("--evaluate-every", "1000", "--valid-examples", "4", "--steps", "150", "--dropout", "0"),
    *("--device", "cpu", "--beam", "1"),
]
DRAW = random.Random(1)
WORDS = ["".join(DRAW.choices("abcdefgz", k=DRAW.randint(1, 9))) for _ in range(60)]
# As typed by hand: with capitals, which the model never saw, and spaces around.
TYPED = [
    *WORDS[:-4], f"  {WORDS[-4]}", f"{WORDS[-3]} \t", WORDS[-2].upper(), f" {WORDS[-1].title()} ",
]  # fmt: skip
QUANTIZATIONS = ("float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has learned letters' sounds, unsure of some."""
    folder, before = tmp_path_factory.mktemp("trained"), os.getcwd()
    write_words(folder, 400)
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "draw_curves", lambda run: None)
            assert train_run("torch", SETTINGS) == 0
    finally:
        os.chdir(before)
    return folder / "runs" / "spelling"


@pytest.fixture(scope="module")
def answered(trained, tmp_path_factory):
    """What the export prints, what the code in it prints, and scored outputs."""
    folder = tmp_path_factory.mktemp("export") / "model"
    said, printed = ask("export_and_follow", str(trained), str(folder), TYPED)
    return folder, said, printed


def ours(trained, search: Search):
    """Our best outputs and their scores, in float32."""
    model = torch_transformer.load(trained)
    source, target = load_vocabularies(trained / "vocabulary", model.config)
    ids = [source.encode(word) for word in WORDS]
    given = encode_sources(ids, rows=len(ids), length=16, pad_id=0)
    found = [best for best, *_ in decode(model, np.asarray(given), search)]
    return [(target.decode(best.ids).split(), best.score) for best in found]


def test_the_code_that_is_printed_translates_as_translate_py_does(trained, answered, call):
    _, said, printed = answered
    options = "--beam 5 --length-penalty 1.0 --max-length 24"
    says(said, "`texts`", f"translate.py {options}")
    status, lines, notes = call(trained, *TYPED, *options.split())
    assert status == 0 and printed == lines
    assert "read as small letters" in notes
    assert len(set(lines)) > 50 and any("AA BB" in line for line in lines)


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("penalty", [1.0, 0.6])
def test_outputs_and_scores(trained, answered, beam, penalty):
    folder, _, _ = answered
    found = ask(
        "n_best", str(folder), [list(word) for word in WORDS], beam_size=beam,
        length_penalty=penalty, patience=2, min_decoding_length=0, max_decoding_length=24,
    )  # fmt: skip
    expected = ours(trained, Search(beam=beam, length_penalty=penalty, max_length=24))
    for ((tokens, score), *_), (mine, my_score) in zip(found, expected, strict=True):
        assert tokens == mine
        assert abs(score - my_score) <= 1e-4


def test_a_text_without_tokens_has_the_empty_output(answered):
    folder, _, _ = answered
    assert ask("translate", str(folder), [[], list("abc")])[0] == []


def test_quantized_models_load_and_translate(trained, tmp_path):
    """What is stored translates alike, computed in float32; what is printed runs everywhere.

    Which products CTranslate2 computes with integers, and how, depends on the processor. PyTorch
    is there: CTranslate2 rounds to bfloat16 with it.
    """
    exact = [tokens for tokens, _ in ours(trained, Search(beam=5, max_length=24))]
    options = {"beam_size": 5, "patience": 2, "min_decoding_length": 0, "max_decoding_length": 24}
    options["suppress_sequences"] = [["<pad>"], ["<s>"]]
    sizes = {}
    answers = ask("quantized", str(trained), str(tmp_path), WORDS, QUANTIZATIONS, options)
    for name, (said, lines, outputs) in answers.items():
        same = sum(one == other for one, other in zip(outputs, exact, strict=True))
        assert same >= 0.9 * len(exact), name
        assert len(lines) == len(WORDS)
        assert ("on every processor" in said) == name.startswith("int")
        sizes[name] = (tmp_path / name / "model.bin").stat().st_size
    assert sizes["int8"] < sizes["int16"] and sizes["int8_float16"] < sizes["int8"]
    assert sizes["float16"] == sizes["bfloat16"]


def test_bfloat16_without_pytorch_says_what_to_install(trained, tmp_path):
    status, said = ask("refused", str(trained), str(tmp_path / "out"), "--quantization", "bfloat16")
    assert status == 2
    assert re.search(r"--quantization bfloat16: .*pip install 'twinformer\[torch\]'", said)
    assert not list(tmp_path.iterdir())
