"""python -m parity A B --text: the user's own texts, by the vocabulary that lies beside a model."""

import json

import numpy as np
import pytest
from messages import says

pytest.importorskip("torch")
pytest.importorskip("jax")

from huggingface_cases import random_model  # noqa: E402
from parity_cases import TINY, failed, random_weights, write  # noqa: E402

from parity.__main__ import main  # noqa: E402
from parity.sides.opening import open_side  # noqa: E402
from parity.sides.texts import read_texts  # noqa: E402
from training_recipe.text.model_vocabularies import load_vocabularies  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")


def lines(tmp_path, *texts) -> str:
    path = tmp_path / "texts.tsv"
    path.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    return str(path)


def test_a_run_reads_texts_by_its_vocabularies(run, tmp_path, capsys):
    path = lines(tmp_path, "abcab\tAA BB", "gag\tCC")
    config = open_side(str(run)).config
    source, target = load_vocabularies(run / "vocabulary", config)
    (ids,) = read_texts(tmp_path / "texts.tsv", ("elsewhere", str(run)), config)
    assert ids.source[0].tolist() == [*source.encode("abcab"), config.eos_id]
    first = [config.decoder_start_id, *target.encode("AA BB"), config.eos_id]
    assert ids.target[0].tolist() == first
    assert ids.target[1].tolist() == [first[0], *target.encode("CC"), config.eos_id, config.pad_id]
    given = [str(run), str(run), "--text", path, "--precision", "--json"]
    assert main([*given, "--b-framework", "jax"]) == 0
    assert json.loads(capsys.readouterr().out)["batches"] == [[[2, 6], [2, 4]]]


def test_many_lines_are_several_batches(run, tmp_path):
    lines(tmp_path, *["abc\tAA"] * 70)
    config = open_side(str(run)).config
    batches = read_texts(tmp_path / "texts.tsv", (str(run), ""), config)
    assert [len(batch.source) for batch in batches] == [32, 32, 6]


def test_a_tokenizer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<pad>": 1, "</s>": 2, "ja": 3, "nein": 4}, unk_token="<pad>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")
    folder = tmp_path / "bart"
    sizes = {"vocab_size": 9, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.BartConfig(
        **sizes, **heads, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16
    )
    random_model(transformers.BartForConditionalGeneration, config).save_pretrained(folder)
    fast.save_pretrained(folder)
    lines(tmp_path, "ja nein\tnein")
    ours = open_side(str(folder)).config
    (ids,) = read_texts(tmp_path / "texts.tsv", (f"hf:{folder}", ""), ours)
    assert ids.source.tolist() == [[3, 4]]
    assert ids.target.tolist() == [[ours.decoder_start_id, 4]]


def test_every_faulty_line_at_once(run, tmp_path, capsys):
    path = lines(tmp_path, "abc", "abc\tAA", "abcabcabcabcabc\tAA", "\tAA")
    error = failed(capsys, run, run, "--text", path)
    says(error, "3 faults")
    says(error, "line 1", "tab")
    says(error, "line 3", "source", "16 tokens", 12)
    says(error, "line 4")


def test_of_many_faulty_lines_the_first_and_a_count(run, tmp_path, capsys):
    path = lines(tmp_path, *["a sentence"] * 1500, *["abcabcabcabcabc\tAA"] * 9, "abc\tAA")
    error = failed(capsys, run, run, "--text", path)
    says(error, "1509 faults")
    says(error, "line 1", "tab")
    says(error, "and 1,497 more lines", "tab")
    says(error, "line 1501", "16 tokens")
    says(error, "and 6 more lines", "model")
    assert len(error.splitlines()) < 12


def test_nobody_has_a_vocabulary(tmp_path, capsys):
    folder = write(tmp_path / "a", TINY, random_weights(TINY))
    error = failed(capsys, folder, folder, "--text", lines(tmp_path, "a\tb"))
    assert "neither A nor B has one" in error


def test_numbers_that_overflow_are_placed(tmp_path, capsys):
    weights = random_weights(TINY)
    name = "encoder.enc_layers.0.ffn.fc1.weight"
    weights[name] = weights[name] * 1e6
    folder = write(tmp_path / "a", TINY, weights)
    assert main([str(folder), str(folder), "--precision", "float16", "--no-gradients"]) == 0
    text = capsys.readouterr().out
    says(text, "NaN or infinite", "first in encoder layer 1, ffn.fc1")
    given = [str(folder), str(folder), "--precision", "float16", "--no-gradients", "--json"]
    assert main(given) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["budget"]["float16"]["b"]["max_abs"] == "nan"
    weights[name] = np.full_like(weights[name], 1e200)
    weights["encoder.enc_layers.0.ffn.fc2.weight"] *= 1e200
    other = write(tmp_path / "b", TINY, weights)
    error = failed(capsys, folder, other)
    says(error, "B", "NaN or infinite", "first in encoder layer 1, ffn.fc2")
