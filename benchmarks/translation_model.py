"""The model and sentences of benchmarks/translate.py: one set of random weights for everybody.

Marian's form, because transformers, CTranslate2 and both twins all read it. The table of words is
larger than in training's first step, so that outputs differ as clearly as a trained model's do; the
output bias keeps a sentence from ending before its last column, so that all compute the same.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from convert.checkpoints import Checkpoint, write_torch_checkpoint
from transformer_spec import TransformerConfig, initial_weights

ROOT = Path(__file__).resolve().parents[1]
SHORTEST, LONGEST = 8, 30  # source words, the end not counted
OUTPUT_LENGTH = 30
TABLE_SCALE = 3.0
NEVER_ENDS = -100.0


def base_config(vocab_size: int = 10_000, **smaller: Any) -> TransformerConfig:
    """The base model of Vaswani et al. 2017, table 3, in Marian's form."""
    sizes: dict[str, Any] = {
        "hidden_dim": 512,
        "inner_dim": 2048,
        "num_heads": 8,
        "num_encoder_layers": 6,
    }
    sizes |= {"num_decoder_layers": 6, "max_length": 64} | smaller
    return TransformerConfig(
        vocab_size, vocab_size, **sizes, sinusoid_layout="concatenated", activation="relu",
        tied_embeddings="all", output_bias="frozen", pad_id=vocab_size - 1, eos_id=0, unk_id=1,
        bos_id=0, decoder_start_id=vocab_size - 1, dropout=0.1,
    )  # fmt: skip


def random_weights(config: TransformerConfig) -> dict[str, np.ndarray]:
    weights = initial_weights(config, 0, np.float32)
    weights["encoder.embedding.weight"] = weights["encoder.embedding.weight"] * TABLE_SCALE
    weights["decoder.finalFc.bias"] = weights["decoder.finalFc.bias"].copy()
    weights["decoder.finalFc.bias"][config.eos_id] = NEVER_ENDS
    return weights


def sentences(count: int, config: TransformerConfig) -> list[list[int]]:
    """Random words, ids without the end."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(SHORTEST, LONGEST, count, endpoint=True)
    return [draw.integers(2, config.pad_id, length).tolist() for length in lengths]


def write_models(place: Path, config: TransformerConfig, wanted: set[str]) -> None:
    """Folder ``ours``, and for libraries that are wanted ``marian`` and ``ctranslate2``.

    ``python -m convert`` writes the former, CTranslate2's own converter the latter.
    """
    ours = place / "ours"
    ours.mkdir()
    config.save(ours / "config.json")
    write_torch_checkpoint(ours, Checkpoint(random_weights(config)))
    if not wanted:
        return
    convert = [sys.executable, "-m", "convert", str(ours), str(place / "marian"), "--to", "marian"]
    subprocess.run(convert, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    if "ctranslate2" not in wanted:
        return
    own = [sys.executable, "-m", "benchmarks.translation_model"]
    own += [str(place / "marian"), str(place / "ctranslate2")]
    subprocess.run(own, cwd=ROOT, check=True)


def to_ctranslate2(marian: str, folder: str) -> None:
    """CTranslate2's own converter; words are named by their ids, since there is no tokenizer."""
    from types import SimpleNamespace

    import transformers
    from ctranslate2.converters.transformers import MarianMTLoader

    model = transformers.MarianMTModel.from_pretrained(marian)
    names = {str(number): number for number in range(model.config.vocab_size - 1)}
    names["<pad>"] = model.config.vocab_size - 1
    tokenizer = SimpleNamespace(
        eos_token="0", unk_token="1", bos_token="0", get_vocab=lambda: names
    )
    spec = MarianMTLoader()(model, tokenizer)
    spec.validate()
    spec.optimize(quantization=None)
    Path(folder).mkdir()
    spec.save(folder)


if __name__ == "__main__":
    to_ctranslate2(*sys.argv[1:])
