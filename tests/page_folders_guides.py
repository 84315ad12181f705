"""What the pages about training, translating, converting, the Hub and T5X read.

Texts are of few letters, so that vocabularies of few pieces hold them. Models are random, and saved
by their own libraries.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from page_commands import run
from published_cases import model, pieces, write_json
from t5_folders import USUAL, of_madlad, pieces_of_t5, write, write_model
from torch import nn

LETTERS = {"en": "abdehmnrst", "de": "aeghinrstu", "ko": "가나다라마바사아자차"}
PAIRS = 60
# Of a call of twinformer.train: what page_commands.shortened makes of a command.
SHORT = (
    ", steps=4, evaluate_every=2, save_every=2, valid_examples=2, test_examples=2, batch_shapes=1"
)
FEW_STEPS = SHORT + (
    ", source_vocab_size=40, target_vocab_size=40, preset='tiny', hidden_dim=8, inner_dim=12"
)
OPUS = "Helsinki-NLP/opus-mt-en-de"


@cache
def sentences(language: str, count: int = PAIRS) -> tuple[str, ...]:
    """Lines of words of few letters, the same each time."""
    draw = random.Random(language)
    words = ["".join(draw.choices(LETTERS[language], k=draw.randint(2, 5))) for _ in range(30)]
    return tuple(" ".join(draw.choices(words, k=draw.randint(2, 6))) for _ in range(count))


def write_lines(path: Path, lines: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_table(
    path: Path, header: str, mark: str, languages: tuple[str, str] = ("ko", "ko")
) -> None:
    """Pairs of lines, Korean ones where nothing else is said, below a header."""
    sides = sentences(languages[0]), sentences(languages[1])[::-1]
    rows = [mark.join(pair) for pair in zip(*sides, strict=True)]
    write_lines(path, (header, *rows))


def corpus(folder: Path) -> None:
    """Parallel files in three languages, tables, and texts to translate."""
    for language in LETTERS:
        write_lines(folder / f"corpus/train.{language}", sentences(language))
    write_lines(folder / "new.en", (*sentences("en", 3), "", *sentences("en", 5)[3:]))
    write_table(folder / "pairs.csv", "Q,A", ",", ("en", "ko"))
    write_table(folder / "pairs.tsv", "first\tsecond", "\t")
    write_lines(folder / "words.txt", ("twinformer", "", "parity"))


def named_corpora(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Files of few lines for the corpora that have names, with hashes of their own."""
    from training_recipe.corpora.named import NAMED_CORPORA

    patch.setenv("TWINFORMER_DATA", str(folder / "data"))
    for name, published in list(NAMED_CORPORA.items()):
        files = {}
        for file, given in published.files.items():
            path = folder / "data" / name / file
            write_corpus_file(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            files[file] = replace(given, sha256=digest)
        patch.setitem(NAMED_CORPORA, name, replace(published, files=files))


def write_corpus_file(path: Path) -> None:
    """A table, or one side of parallel lines; fewer of them where they judge."""
    import gzip

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        return write_table(path, "Q,A", ",")
    language = path.name.removesuffix(".gz")[-2:]
    lines = sentences(language, PAIRS if path.name.startswith("train") else 5)
    write_lines(path, lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return None


def pronouncing(folder: Path, name: str = "cmudict-jax-1", backend: str = "jax") -> None:
    """A run of the pronouncing dictionary, of four steps."""
    status = run(f"python train.py --backend {backend} --name {name}", folder)
    assert status == 0


def quiet() -> None:
    """No bars of progress from transformers."""
    import transformers

    transformers.logging.disable_progress_bar()


def marian(folder: Path) -> Path:
    """A Marian folder with its tokenizer, as transformers saves both."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True)
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(model())
    quiet()
    names = [name for name in pieces(model()) if name not in ("<s>", "</s>", "<unk>")]
    ordered = ["</s>", "<unk>", *names, "<pad>"]
    write_json(folder / "vocab.json", {name: number for number, name in enumerate(ordered)})
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    with warnings.catch_warnings():  # of sacremoses, which the tokenizer does without
        warnings.simplefilter("ignore")
        tokenizer = MarianTokenizer(*files, source_lang="en", target_lang="de")
    tokenizer.save_pretrained(folder)
    pad = len(ordered) - 1
    sizes = {"d_model": 8, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "vocab_size": pad + 1}
    sizes |= {f"{half}_attention_heads": 2 for half in ("encoder", "decoder")}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
    ids = {"pad_token_id": pad, "eos_token_id": 0, "forced_eos_token_id": 0}
    config = MarianConfig(**sizes, **layers, **ids, decoder_start_token_id=pad,
                          scale_embedding=True, activation_function="swish")  # fmt: skip
    made = MarianMTModel(config)
    made.generation_config.max_length, made.generation_config.num_beams = 64, 4
    made.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return folder


def t5(folder: Path, pieces: bytes, sentinels: int = 100, **settings: Any) -> Path:
    """A folder of T5's class with its pieces, and the marks of gaps behind them."""
    from sentencepiece import SentencePieceProcessor

    quiet()
    count = SentencePieceProcessor(model_proto=pieces).get_piece_size()  # pyright: ignore
    folder.mkdir()
    write(folder, pieces, USUAL | {"extra_ids": sentinels})
    return write_model(folder, "t5", count + sentinels, **settings)


def readme(folder: Path, request: pytest.FixtureRequest) -> None:
    quiet()
    marian(folder / "opus-mt-en-de")
    corpus(folder)
    write_table(folder / "pairs.csv", "Q,A", ",", ("en", "de"))


def training(folder: Path, request: pytest.FixtureRequest) -> None:
    """Texts, and the corpora that have names."""
    corpus(folder)
    named_corpora(folder, request.getfixturevalue("monkeypatch"))


def translating(folder: Path, request: pytest.FixtureRequest) -> None:
    """A run, texts, and the models of the Hub that the page names."""
    corpus(folder)
    pronouncing(folder)
    marian(folder / "opus-mt-en-de")
    t5(folder / "t5-small", pieces_of_t5())
    t5(folder / "madlad400-3b-mt", of_madlad(), sentinels=0, pad_token_id=1, eos_token_id=2)


def hub(folder: Path, request: pytest.FixtureRequest) -> None:
    """A folder where the repository would be; the test of the Hub has a Hub in its place."""
    corpus(folder)
    marian(folder / OPUS)


def t5x(folder: Path, request: pytest.FixtureRequest) -> None:
    """Folders of runs of T5X, and what the page says to put together on the way."""
    from t5x_cases import CASES, V, write_checkpoint

    corpus(folder)
    write_table(folder / "pairs.csv", "Q,A", ",", ("en", "de"))
    for name, case in (("t5x-run", "t5 1.1"), ("umt5-run", "scalable, scanned")):
        chosen = replace(CASES[case], dtype="float32")
        write_checkpoint(folder / name, chosen.arrays(), states=True)
        (folder / name / "config.gin").write_text(chosen.gin())
    shutil.copytree(folder / "t5x-run/checkpoint_1100", folder / "no-gin/checkpoint_1100")
    (folder / "spiece.model").write_bytes(pieces_of_t5(size=V))
    write_json(folder / "tokenizer_config.json", USUAL | {"extra_ids": 0})


class OfAUser(nn.Module):
    """What people write around nn.Transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.src_emb, self.tgt_emb = nn.Embedding(11, 16), nn.Embedding(13, 16)
        self.transformer = nn.Transformer(16, 8, 1, 1, 12, batch_first=True)
        self.generator = nn.Linear(16, 13)


def families(folder: Path, request: pytest.FixtureRequest) -> None:
    """A run, and a file or folder of each kind that the page converts."""
    from tutorial_reference import Sizes, random_state

    pronouncing(folder)
    marian(folder / "opus-mt-en-de")
    adapter(folder / "opus-mt-en-de", folder / "my-lora")
    torch.save(OfAUser().state_dict(), folder / "user.pt")
    tutorial = random_state(Sizes(), "second")
    torch.save({n: torch.from_numpy(array) for n, array in tutorial.items()}, folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(vars(Sizes())))
    write_lines(folder / "words-and-sounds.txt", ("bed\tB EH D", "hat\tHH AE T") * 20)


def adapter(base: Path, folder: Path) -> None:
    """A LoRA adapter of PEFT on a model of transformers."""
    import peft
    from transformers import MarianMTModel

    model = MarianMTModel.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        peft.get_peft_model(model, asked).save_pretrained(folder)
