"""What benchmarks/translate.py compares: beam search by the same weights over the same words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.outside_training import torch_threads
from benchmarks.translation_model import FORMS, OUTPUT_LENGTH, sentences
from benchmarks.turns import JAX, TORCH, Turn, use_cores
from training_recipe.searching.workers import ONE_WORKER
from transformer_spec import TransformerConfig

JAX_BF16, TORCH_BF16 = f"{JAX}, bfloat16", f"{TORCH}, bfloat16"
JAX_RULE, TORCH_RULE = f"{JAX}, generate's rule", f"{TORCH}, generate's rule"
SAME_MODEL = {JAX_RULE: JAX, TORCH_RULE: TORCH}
GENERATE, CT2, CT2_INT8 = "transformers generate", "CTranslate2", "CTranslate2, int8"
CT2_TOGETHER = "CTranslate2, one batch at a time"  # on all cores
JAX_TOGETHER, TORCH_TOGETHER = f"{JAX}, one batch at a time", f"{TORCH}, one batch at a time"
BATCH, BEAM = 32, 5

Ids = list[list[int]]
Translate = Callable[[Ids], Ids]


def make(name: str, task: dict[str, Any]) -> tuple[str, Turn]:
    """Version and turn of a contender; turn n translates the n-th part of the sentences."""
    ids = sentences(task["sentences"], FORMS[task["form"]](**task["model"]))
    parts = np.array_split(np.arange(len(ids)), task["rounds"])
    version, translate = CONTENDERS[name](Path(task["place"]), task["threads"])

    def turn(number: int) -> dict[str, Any]:
        # Turn 0 warms up on everything of the first part, so that every shape is compiled.
        outputs = translate([ids[chosen] for chosen in parts[max(number - 1, 0)]])
        return {"outputs": outputs, "done": {"output_tokens": sum(map(len, outputs))}}

    return version, turn


def ours(backend: Any, model: Any, workers: Any, rule: str) -> Translate:
    """The way that translate.py takes, by one of the rules of searching."""
    from training_recipe.searching.batches import decode_all
    from training_recipe.searching.search import Search

    search = Search(beam=BEAM, length_penalty=0.0, max_length=OUTPUT_LENGTH, rule=rule)
    if rule == "generate":
        search = replace(search, banned=((model.config.pad_id,),))

    def decode(source: np.ndarray, search: Search) -> Any:
        return backend.decode(model, source, search)

    def translate(ids: Ids) -> Ids:
        rows = {"rows_of": lambda length: BATCH, "workers": workers}
        found = decode_all(decode, ids, search, config=model.config, **rows)
        return [outputs[0].ids for outputs in found]

    return translate


def jax_model(
    place: Path,
    threads: int,
    dtype: str = "float32",
    rule: str = "exact",
    together: bool = False,
) -> tuple[str, Translate]:
    use_cores(threads)
    import jax
    from flax import nnx

    import flax_transformer
    from flax_transformer import decoding, device

    model = flax_transformer.load(place / "ours")
    if dtype != "float32":
        graph, weights = nnx.split(model)
        model = nnx.merge(graph, jax.tree.map(lambda x: x.astype(dtype), weights))
    workers = ONE_WORKER if together else device.workers_of(model)
    return f"jax {jax.__version__}", ours(decoding, model, workers, rule)


def torch_model(
    place: Path,
    threads: int,
    dtype: str = "float32",
    rule: str = "exact",
    together: bool = False,
) -> tuple[str, Translate]:
    version = torch_threads(threads)
    import torch

    import torch_transformer
    from torch_transformer import decoding, device

    model = torch_transformer.load(place / "ours").to(getattr(torch, dtype))
    workers = ONE_WORKER if together else device.workers_of(model)
    return version, ours(decoding, model, workers, rule)


def generate(place: Path, threads: int) -> tuple[str, Translate]:
    """The library's own model of this form, batches of sentences of about one length."""
    torch_threads(threads)
    import torch
    import transformers

    folder = place / "theirs"
    model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    eos, pad = model.config.eos_token_id, model.config.pad_token_id
    chosen = transformers.GenerationConfig(
        num_beams=BEAM, length_penalty=0.0, max_new_tokens=OUTPUT_LENGTH, do_sample=False,
        eos_token_id=eos, pad_token_id=pad, decoder_start_token_id=pad, bad_words_ids=[[pad]],
    )  # fmt: skip
    model.generation_config = chosen

    def batch(ids: Ids) -> Ids:
        source = torch.full((len(ids), max(map(len, ids)) + 1), pad)
        for row, words in zip(source, ids, strict=True):
            row[: len(words) + 1] = torch.tensor([*words, eos])
        outputs = model.generate(source, attention_mask=source != pad)
        return [[i for i in row if i not in (eos, pad)] for row in outputs.tolist()]

    return f"transformers {transformers.__version__}", lambda ids: in_batches(batch, ids)


def in_batches(translate: Translate, ids: Ids) -> Ids:
    """Sentences sorted by length, in batches, and their outputs in the given order."""
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    found: Ids = [[] for _ in ids]
    for first in range(0, len(ids), BATCH):
        members = order[first : first + BATCH]
        for number, output in zip(members, translate([ids[m] for m in members]), strict=True):
            found[number] = output
    return found


def ctranslate2(
    place: Path, threads: int, compute: str = "float32", together: bool = False
) -> tuple[str, Translate]:
    """A batch on each core, which is faster than the default: all cores ``together`` on one."""
    import ctranslate2

    end = str(TransformerConfig.load(place / "ours" / "config.json").eos_id)
    inner, outer = (threads, 1) if together else (1, threads)
    translator = ctranslate2.Translator(
        str(place / "ctranslate2"), compute_type=compute, intra_threads=inner, inter_threads=outer
    )

    def translate(ids: Ids) -> Ids:
        found = translator.translate_batch(
            [[*map(str, words), end] for words in ids], max_batch_size=BATCH, beam_size=BEAM,
            length_penalty=0.0, max_decoding_length=OUTPUT_LENGTH,
        )  # fmt: skip
        return [[int(word) for word in result.hypotheses[0]] for result in found]

    return f"ctranslate2 {ctranslate2.__version__}", translate


CONTENDERS: dict[str, Callable[[Path, int], tuple[str, Translate]]] = {
    JAX: jax_model,
    TORCH: torch_model,
    JAX_BF16: lambda place, threads: jax_model(place, threads, "bfloat16"),
    TORCH_BF16: lambda place, threads: torch_model(place, threads, "bfloat16"),
    JAX_RULE: lambda place, threads: jax_model(place, threads, rule="generate"),
    TORCH_RULE: lambda place, threads: torch_model(place, threads, rule="generate"),
    GENERATE: generate,
    CT2: ctranslate2,
    JAX_TOGETHER: lambda place, threads: jax_model(place, threads, together=True),
    TORCH_TOGETHER: lambda place, threads: torch_model(place, threads, together=True),
    CT2_TOGETHER: lambda place, threads: ctranslate2(place, threads, together=True),
    CT2_INT8: lambda place, threads: ctranslate2(place, threads, "int8"),
}
MODULES = {GENERATE: "transformers"}
MODULES |= dict.fromkeys((CT2, CT2_TOGETHER, CT2_INT8), "ctranslate2")
# Processors without bfloat16 instructions take four times as long in it, and cores that work
# together on one batch longer than apart.
APART = (JAX_BF16, TORCH_BF16, JAX_TOGETHER, TORCH_TOGETHER, CT2_TOGETHER)
USUAL = [name for name in CONTENDERS if name not in APART]
