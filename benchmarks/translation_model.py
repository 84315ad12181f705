"""The models and sentences of benchmarks/translate.py: one set of random weights for everybody.

Marian's and T5's form, because transformers, CTranslate2 and both twins all read them. The table of
words is larger than in training's first step, so that outputs differ as clearly as a trained
model's do. The output bias, or in T5 an empty row of the table, keeps a sentence from ending before
its last column, so that all compute the same.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
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


def t5_config(vocab_size: int = 32_128, **smaller: Any) -> TransformerConfig:
    """T5-small of Raffel et al. 2020, version 1.0."""
    sizes: dict[str, Any] = {
        "hidden_dim": 512,
        "inner_dim": 2048,
        "num_heads": 8,
        "num_encoder_layers": 6,
    }
    sizes |= {"num_decoder_layers": 6, "max_length": 512, "dropout": 0.1} | smaller
    rate = sizes["dropout"]
    return TransformerConfig(
        vocab_size, vocab_size, **sizes, norm_position="pre", norm="rms", norm_epsilon=1e-6,
        encoder_positions="relative", decoder_positions="relative", embedding_scale=1.0,
        attention_scale=1.0, attention_bias=False, ffn_bias=False, output_bias="none",
        tied_embeddings="all", output_scale=sizes["hidden_dim"] ** -0.5,
        attention_dropout=rate, activation_dropout=rate, final_dropout=rate,
        pad_id=0, eos_id=1, unk_id=2, bos_id=0, decoder_start_id=0,
    )  # fmt: skip


FORMS: dict[str, Callable[..., TransformerConfig]] = {"marian": base_config, "t5": t5_config}


def random_weights(config: TransformerConfig) -> dict[str, np.ndarray]:
    weights = initial_weights(config, 0, np.float32)
    scale = TABLE_SCALE / config.output_scale
    table = weights["encoder.embedding.weight"] = weights["encoder.embedding.weight"] * scale
    if config.output_bias == "none":
        table[config.eos_id] = 0
        return weights
    weights["decoder.finalFc.bias"] = weights["decoder.finalFc.bias"].copy()
    weights["decoder.finalFc.bias"][config.eos_id] = NEVER_ENDS
    return weights


def sentences(count: int, config: TransformerConfig) -> list[list[int]]:
    """Random words, ids without the end."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(SHORTEST, LONGEST, count, endpoint=True)
    first = 3 if config.pad_id == 0 else 2
    last = config.pad_id or config.source_vocab_size
    return [draw.integers(first, last, length).tolist() for length in lengths]


def write_models(place: Path, form: str, config: TransformerConfig, wanted: set[str]) -> None:
    """Folder ``ours``, and for libraries that are wanted ``theirs`` and ``ctranslate2``.

    ``python -m convert`` writes the former, CTranslate2's own converter the latter.
    """
    ours = place / "ours"
    ours.mkdir()
    config.save(ours / "config.json")
    write_torch_checkpoint(ours, Checkpoint(random_weights(config)))
    if not wanted:
        return
    convert = [sys.executable, "-m", "convert", str(ours), str(place / "theirs"), "--to", form]
    subprocess.run(convert, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    if "ctranslate2" not in wanted:
        return
    own = [sys.executable, "-m", "benchmarks.translation_model", form]
    own += [str(place / "theirs"), str(place / "ctranslate2")]
    subprocess.run(own, cwd=ROOT, check=True)


def to_ctranslate2(form: str, theirs: str, folder: str) -> None:
    """CTranslate2's own converter; words are named by their ids, since there is no tokenizer."""
    from types import SimpleNamespace

    import transformers
    from ctranslate2.converters.transformers import MarianMTLoader, T5Loader

    kinds: dict[str, Any] = {
        "marian": (transformers.MarianMTModel, MarianMTLoader),
        "t5": (transformers.T5ForConditionalGeneration, T5Loader),
    }
    kind, loader = kinds[form]
    model = kind.from_pretrained(theirs)
    names = {str(number): number for number in range(model.config.vocab_size)}
    if form == "marian":
        names["<pad>"] = names.pop(str(model.config.vocab_size - 1))
    eos, pad = str(model.config.eos_token_id), "0"
    tokenizer = SimpleNamespace(
        eos_token=eos, unk_token="2" if form == "t5" else "1", bos_token="0", pad_token=pad,
        get_vocab=lambda: names, convert_ids_to_tokens=str,
    )  # fmt: skip
    spec = loader()(model, tokenizer)
    spec.validate()
    spec.optimize(quantization=None)
    Path(folder).mkdir()
    spec.save(folder)


if __name__ == "__main__":
    to_ctranslate2(*sys.argv[1:])
