"""python -m convert RUN DEST --to ctranslate2: what is written, what is refused, what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from messages import says

torch = pytest.importorskip("torch")
pytest.importorskip("tensorstore")

from convert_cases import CONFIG, fail, snapshot, write_run  # noqa: E402
from ctranslate2_apart import ask  # noqa: E402
from opennmt_reference import EMBEDDING, Checkpoint  # noqa: E402

from convert.__main__ import main  # noqa: E402
from convert.core.pipeline import Converted  # noqa: E402
from convert.core.tensors import Held  # noqa: E402
from convert.exports.ctranslate2_tokens import tokens_of  # noqa: E402
from convert.exports.ctranslate2_usage import usage  # noqa: E402
from convert.families.ctranslate2_names import ctranslate2_rules  # noqa: E402
from convert.formats.safetensors import write_safetensors  # noqa: E402
from training_recipe.text.model_vocabularies import load_vocabularies  # noqa: E402
from training_recipe.text.vocabulary import build_vocabulary  # noqa: E402
from transformer_spec import TransformerConfig, initial_weights, sinusoid_table  # noqa: E402

TO = ("--to", "ctranslate2")
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


@pytest.fixture(scope="module")
def folders(runs, tmp_path_factory):
    """The exports of the same weights as a run of each backend."""
    place = tmp_path_factory.mktemp("exports")
    jobs = [
        {"source": str(run), "folder": str(place / name), "sentences": [], "outputs": []}
        for name, run in runs.items()
    ]
    ask("export_and_answer", [job | {"searches": []} for job in jobs])
    return {name: place / name for name in runs}


class TestTheFolder:
    def test_both_backends_give_the_same_model(self, folders):
        one, other = ((folder / "model.bin").read_bytes() for folder in folders.values())
        assert one == other

    def test_vocabularies_and_special_tokens(self, folders):
        folder = folders["torch"]
        source = json.loads((folder / "source_vocabulary.json").read_text())
        target = json.loads((folder / "target_vocabulary.json").read_text())
        assert source[:4] == target[:4] == SPECIAL
        assert sorted(source[4:]) == sorted("abcdefgA") and target[4:6] == ["AA", "BB"]
        content = json.loads((folder / "config.json").read_text())
        expected = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        expected |= {"decoder_start_token": "<s>", "add_source_eos": True, "add_source_bos": False}
        assert content == content | expected | {"layer_norm_epsilon": 1e-5}
        assert (folder / "vocabulary" / "source.json").exists()

    def test_every_tensor_of_both_sides_is_in_the_ledger(self, folders, runs):
        ledger = json.loads((folders["torch"] / "conversion.json").read_text())
        assert ledger["to"] == {
            "names": "ctranslate2", "container": "model.bin", "quantization": "float32",
        }  # fmt: skip
        config = TransformerConfig.load(runs["torch"] / "config.json")
        assert ledger["sources"].keys() == initial_weights(config, 0).keys()
        targets = {name for rule in ctranslate2_rules(config) for name in rule.targets}
        assert ledger["targets"].keys() == targets
        fused = ledger["targets"]["encoder/layer_0/self_attention/linear_0/weight"]
        assert (fused["what"], fused["shape"], len(fused["from"])) == ("fused", [24, 8], 3)
        table = ledger["targets"]["decoder/position_encodings/encodings"]
        assert (table["what"], table["reason"]) == ("derived", "sinusoids from position 0")


class TestPlans:
    def test_a_dry_run_writes_nothing_and_says_what_is_dropped(self, tmp_path, capsys):
        run = without_vocabulary(write_run(tmp_path / "run", "torch"))
        before = snapshot(tmp_path)
        assert main([str(run), str(tmp_path / "out"), *TO, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert "fcQ.weight + decoder.dec_layers.0.multiheadattention1.fcK.weight + " in said
        says(said, "exp_avg/encoder.embedding.weight", "float32 [11, 6]", "dropped")
        assert "no optimizer: it only translates" in said
        assert snapshot(tmp_path) == before and "ctranslate2.specs" not in sys.modules

    def test_float64_weights_are_rounded_once(self, tmp_path, capsys):
        folder = tmp_path / "model"
        folder.mkdir()
        weights = initial_weights(CONFIG, 0, np.float64)
        write_safetensors(folder / "model.safetensors", Held(weights))
        CONFIG.save(folder / "config.json")
        assert main([str(folder), str(tmp_path / "out"), *TO, "--dry-run"]) == 0
        lines = capsys.readouterr().out.splitlines()
        planned = [line for line in lines if " float" in line]
        assert len(planned) > 10 and all("  float32 [" in line for line in planned)

    @pytest.mark.parametrize("to", ["ctranslate2", "torch-nn"])
    def test_what_another_family_kept_aside_is_dropped_by_its_own_name(self, tmp_path, capsys, to):
        torch.save(Checkpoint(qkv_bias=True).saved(), tmp_path / "model.pt")
        given = [str(tmp_path / name) for name in ("model.pt", "out")]
        assert main([*given, "--to", to, "--dry-run"]) == 0
        dropped = [x for x in capsys.readouterr().out.splitlines() if "  dropped (kept aside" in x]
        assert [line.split()[0] for line in dropped] == [
            f"{half}.{EMBEDDING}.pe.pe" for half in ("encoder", "decoder")
        ]

    def test_tables_begin_at_the_first_position(self):
        settings = CONFIG.to_dict() | {"position_offset": 2}
        config = TransformerConfig(**settings)
        weights = initial_weights(config, 0)
        found = Converted(Held(weights), ctranslate2_rules(config)).read_all()
        learned = weights["encoder.pos_embedding.weight"][2:]
        assert np.array_equal(found["encoder/position_encodings/encodings"], learned)
        table = sinusoid_table(config)[2:]
        assert np.array_equal(found["decoder/position_encodings/encodings"], table)
        assert len(table) == len(learned) == config.max_length


class TestRefusals:
    def test_all_that_forbids_it_is_named_at_once(self, tmp_path, capsys):
        settings = CONFIG.to_dict() | {"num_encoder_layers": 0, "num_decoder_layers": 0}
        config, folder = TransformerConfig(**settings), tmp_path / "model"
        folder.mkdir()
        (folder / "vocabulary").mkdir()
        write_safetensors(folder / "model.safetensors", Held(initial_weights(config, 0)))
        config.save(folder / "config.json")
        error = fail(capsys, folder, tmp_path / "out", *TO)
        says(error, "CTranslate2", "3 faults")
        for name in ("num_encoder_layers", "num_decoder_layers"):
            says(error, name, 0, "at least 1")
        assert "has no source.json and no target.json" in error
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--to", "flax", "--quantization", "int8"), "int8 needs --to ctranslate2"),
            ((*TO, "--dtype", "float16"), "give --quantization"),
            ((*TO, "--shard-size", "1MB"), "--shard-size cuts safetensors"),
            ((*TO, "--container", "pt"), "is written as model.bin, not pt"),
            ((*TO, "--map", "encoder=x"), "names of their own"),
        ],
    )
    def test_flags_that_do_not_fit(self, runs, tmp_path, capsys, flags, said):
        assert said in fail(capsys, runs["torch"], tmp_path / "out", *flags)

    def test_a_destination_that_exists(self, runs, tmp_path, capsys):
        assert "exists already" in fail(capsys, runs["torch"], tmp_path, *TO)

    def test_without_the_library(self, runs, tmp_path, capsys, monkeypatch):
        from convert.exports import ctranslate2_model

        monkeypatch.setattr(ctranslate2_model, "LIBRARY", "ctranslate2_that_is_not_installed")
        error = fail(capsys, runs["torch"], tmp_path / "out", *TO)
        assert "pip install 'twinformer[ctranslate2]'" in error
        assert not (tmp_path / "out").exists()


class TestTokens:
    def test_words_that_look_like_special_tokens_keep_their_names(self, tmp_path):
        config = self.save(tmp_path, "whitespace", "<s> hello </s>_ <unk> world")
        tokens = tokens_of(config, load_vocabularies(tmp_path / "vocabulary", config))
        assert tokens.target[:4] == ["<pad>__", "<unk>__", "<s>__", "</s>__"]
        assert tokens.source[:4] == tokens.target[:4]
        assert sorted(tokens.target[4:]) == sorted("<s> hello </s>_ <unk> world".split())
        assert tokens.settings(config)["eos_token"] == "</s>__"
        assert tokens.suppressed(config) == [["<pad>__"], ["<s>__"]]

    def test_sentencepiece(self, tmp_path):
        text = "the cat sat on the mat and that was that "
        config = self.save(tmp_path, "sentencepiece", text)
        tokens = tokens_of(config, load_vocabularies(tmp_path / "vocabulary", config))
        assert tokens.target[:4] == SPECIAL
        assert len(set(tokens.target)) == config.target_vocab_size
        pieces = build_vocabulary("sentencepiece", [text])._processor  # pyright: ignore
        assert {tokens.target[i] for i in pieces.encode("the cat")} <= set(tokens.target)
        assert pieces.encode("the cat", out_type=str) == [
            tokens.target[i] for i in pieces.encode("the cat")
        ]
        said = usage(config, tokens, tmp_path, None)
        assert "[list(text.strip().translate(small)) for text in texts]" in said
        assert "small = str.maketrans('ABC', 'abc')\n" in said
        assert "target.decode(tokens)" in said and "source.model" not in said

    def test_a_model_without_vocabularies_has_numbers(self):
        tokens = tokens_of(CONFIG, None)
        assert tokens.source == tokens.target == [str(i) for i in range(11)]
        assert tokens.settings(CONFIG) == {
            "unk_token": "1", "bos_token": "2", "eos_token": "3", "decoder_start_token": "2",
            "add_source_eos": False,
        }  # fmt: skip
        assert "lists of source ids" in usage(CONFIG, tokens, Path("out"), None)

    @staticmethod
    def save(folder, kind: str, text: str) -> TransformerConfig:
        """Letters on the source side, ``kind`` on the target's; a config of their sizes."""
        (folder / "vocabulary").mkdir()
        source, target = build_vocabulary("characters", ["abc"]), build_vocabulary(kind, [text])
        source.save(folder / "vocabulary", "source")
        target.save(folder / "vocabulary", "target")
        return TransformerConfig(
            **CONFIG.to_dict()
            | {"source_vocab_size": len(source), "target_vocab_size": len(target)}
        )


def without_vocabulary(run):
    """The nonsense in these folders is no vocabulary."""
    for file in (run / "vocabulary").iterdir():
        file.unlink()
    (run / "vocabulary").rmdir()
    return run
