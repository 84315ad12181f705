"""What the commands of the pages about the proof, Whisper and adding a family read.

Models are small and random, and saved by their own libraries under the names of the pages.
"""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from pathlib import Path

import pytest
from ctranslate2_apart import ask
from page_blocks import ROOT
from page_commands import run
from published_cases import TEXTS, model, pieces, write_json
from recording_cases import sound, write_wav

ENGLISH = 51864
# Fewer steps of smaller models; a TPU's compiler is in no environment of the tests.
SMALL = "--hidden-dim 8 --inner-dim 12 --num-heads 2 --num-encoder-layers 1 --num-decoder-layers 1"
FEWER_MUTATIONS = (("parity mutations", "parity mutations --layers 2 --width 64 --vocabulary 40"),)
CHANGES = (
    *FEWER_MUTATIONS,
    ("parity train", f"parity train --steps 2 {SMALL}"),
    ("parity tpu", "parity tpu --help"),
)
SPOKEN = ("on the tree", "a hare", "in the tar", "there", "one ant", "a tin hat", "he", "ha the")


def keep_numbers(request: pytest.FixtureRequest) -> None:
    """JAX's 64-bit numbers, which comparing asks for, end with the page."""
    import jax

    before = jax.config.jax_enable_x64
    request.addfinalizer(lambda: jax.config.update("jax_enable_x64", before))


def marian(folder: Path) -> Path:
    """A folder of MarianMTModel with its tokenizer, as transformers saves both."""
    import torch
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir()
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(model())
    names = [name for name in pieces(model()) if name not in ("<s>", "</s>", "<unk>")]
    ids = {name: number for number, name in enumerate(["</s>", "<unk>", *names, "<pad>"])}
    write_json(folder / "vocab.json", ids)
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        MarianTokenizer(*files, source_lang="en", target_lang="de").save_pretrained(folder)
    config = MarianConfig(
        vocab_size=len(ids), pad_token_id=ids["<pad>"], decoder_start_token_id=ids["<pad>"],
        eos_token_id=0, forced_eos_token_id=0, d_model=8, encoder_layers=2, decoder_layers=2,
        encoder_ffn_dim=12, decoder_ffn_dim=12, encoder_attention_heads=2,
        decoder_attention_heads=2, max_position_embeddings=64, activation_function="gelu",
        scale_embedding=True,
    )  # fmt: skip
    made = MarianMTModel(config)
    torch.manual_seed(0)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, 0, 0.3)
    made.generation_config.max_length = 64
    made.save_pretrained(folder)
    return folder


def proof(folder: Path, request: pytest.FixtureRequest) -> None:
    """A model of the Hub, texts and ids to compare on, and a module of one's own, converted."""
    keep_numbers(request)
    marian(folder / "opus-mt-en-de")
    lines = [f"{one}\t{other}" for one, other in zip(TEXTS, TEXTS[1:], strict=False)]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
    ids = {"source": [5, 9, 0], "target": [7, 4, 8, 0]}
    (folder / "one-sentence.jsonl").write_text(json.dumps(ids) + "\n")
    shutil.copy(ROOT / "examples/your_own_model.py", folder)
    table = "--num-heads 4 --activation gelu --output mine.toml"
    for line in (
        "python your_own_model.py",
        f"python -m convert names my_model.pt {table}",
        "python -m convert my_model.pt mine --to flax --names mine.toml",
    ):
        assert run(line, folder) == 0, line


def speech(folder: Path) -> None:
    """A folder of Whisper's class, one that CTranslate2 made of it, and recordings."""
    from speech_models import random_whisper

    soundfile = pytest.importorskip("soundfile")
    sizes = {"num_mel_bins": 80, "max_target_positions": 24, "encoder_layers": 1}
    sizes |= {"decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    library = random_whisper(folder / "whisper-of-transformers", ENGLISH, **sizes)
    place = folder / "build/speech-weights/tiny.en"
    place.parent.mkdir(parents=True)
    ask("convert_whisper", str(library), str(place), "float16")
    shutil.copy(library / "tokenizer.json", place)
    for seed, name in enumerate(("jfk.flac", "interview.mp3")):
        soundfile.write(folder / name, sound(1.5, seed=seed), 16000)
    for name in ("talk.wav", "new.wav"):
        write_wav(folder / name, sound(1.0))


def whisper(folder: Path, request: pytest.FixtureRequest) -> None:
    """The same, and recordings with what is said in them, to fine-tune on."""
    keep_numbers(request)
    request.getfixturevalue("monkeypatch").setenv("XDG_CACHE_HOME", str(folder / "cache"))
    speech(folder)
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("audio", "text"))
        for number, text in enumerate(SPOKEN):
            write_wav(folder / f"{number}.wav", sound(0.2 + 0.02 * number, seed=number))
            rows.writerow((f"{number}.wav", text))


def new_family(folder: Path, request: pytest.FixtureRequest) -> None:
    """The examples; the family that the page registers is forgotten after it."""
    from convert.families.registry import FAMILIES

    keep_numbers(request)
    shutil.copytree(ROOT / "examples", folder / "examples")
    request.addfinalizer(lambda: FAMILIES.pop("lantern", None))
