"""Random models for CTranslate2, and its search carried out over our logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import torch_transformer
from convert.core.tensors import Held
from convert.formats.safetensors import write_safetensors
from training_recipe.searching.search import never_produced
from transformer_spec import TransformerConfig, initial_weights

Found = list[tuple[list[str], float]]
LIMIT = 11  # tokens of an output


def random_model(config: TransformerConfig, seed: int) -> torch_transformer.Transformer:
    """The PyTorch twin in float32."""
    draw = np.random.default_rng(seed)
    start = initial_weights(config, seed).items()
    weights = {n: (a + draw.normal(0, 0.2, a.shape)).astype(np.float32) for n, a in start}
    model = torch_transformer.Transformer(config)
    torch_transformer.load_weights(model, weights)
    return model


def write_folder(folder: Path, model: torch_transformer.Transformer) -> Path:
    """A model folder without vocabularies."""
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", Held(torch_transformer.weights(model)))
    model.config.save(folder / "config.json")
    return folder


def sentences(config: TransformerConfig) -> list[list[int]]:
    """Ids without eos: the longest that the model reads, a single token, and others."""
    draw = np.random.default_rng(3)
    lengths = [config.max_source_length - 1, 1, 6]
    return [draw.integers(4, config.source_vocab_size, size).tolist() for size in lengths]


def batch(config: TransformerConfig, rows: list[list[int]]) -> np.ndarray:
    """(B, S): eos after each row, then padding."""
    width = max(map(len, rows)) + 1
    ended = [[*row, config.eos_id] for row in rows]
    return np.array([row + [config.pad_id] * (width - len(row)) for row in ended])


def numbers(ids: Any) -> list[str]:
    """The tokens of a model without vocabularies."""
    return [str(int(i)) for i in ids]


def suppressed(config: TransformerConfig) -> list[list[str]]:
    return [numbers([i]) for i in np.flatnonzero(never_produced(config))]


@torch.no_grad()
def token_scores(
    model: torch_transformer.Transformer, rows: list[list[int]], outputs: list[list[int]]
) -> list[list[float]]:
    """The log probability of each token of given outputs, and of eos after them."""
    config, found = model.config, []
    for row, output in zip(rows, outputs, strict=True):
        target = torch.tensor([[config.decoder_start_id, *output]])
        log_p = torch.log_softmax(model(torch.from_numpy(batch(config, [row])), target), -1)[0]
        found.append([float(log_p[i, t]) for i, t in enumerate([*output, config.eos_id])])
    return found


@torch.no_grad()
def their_search(
    model: torch_transformer.Transformer, row: list[int], beam: int, patience: float
) -> Found:
    """CTranslate2's beam search (its decoding.cc) over our logits: (tokens, score), best first.

    Of 2 x beam candidates only the first ``beam`` may end, and the rest take the place of those
    that did. It is over at beam x patience outputs. At the limit all that is unfinished counts.
    """
    config, source = model.config, torch.from_numpy(batch(model.config, [row]))
    memory = model.encode(source)
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int]]] = []
    for step in range(LIMIT):
        candidates = _candidates(model, memory, source, live, 2 * beam)
        spare = (c for c in candidates[beam:] if c[1][-1] != config.eos_id)
        live = []
        for score, tokens in candidates[:beam]:
            over = tokens[-1] == config.eos_id or step + 1 == LIMIT
            if over:
                done.append((score / len(tokens), tokens))
            live.append(next(spare, (score, tokens)) if over else (score, tokens))
        if len(done) >= round(beam * patience):
            break
    best = sorted(done, key=lambda one: -one[0])[:beam]
    return [(numbers(t for t in tokens if t != config.eos_id), score) for score, tokens in best]


def _candidates(
    model: torch_transformer.Transformer,
    memory: torch.Tensor,
    source: torch.Tensor,
    live: list[tuple[float, list[int]]],
    count: int,
) -> list[tuple[float, list[int]]]:
    """The likeliest continuations; what is suppressed leaves its probability to the others."""
    config, B = model.config, len(live)
    target = torch.tensor([[config.decoder_start_id, *tokens] for _, tokens in live])
    logits = model.decode(target, memory.expand(B, -1, -1), source.expand(B, -1))[:, -1]
    logits[:, torch.from_numpy(never_produced(config))] = -1e10
    sums = torch.tensor([[score] for score, _ in live]) + torch.log_softmax(logits, -1)
    values, places = sums.flatten().topk(count)
    V = logits.shape[1]
    pairs = zip(values.tolist(), places.tolist(), strict=True)
    return [(value, [*live[place // V][1], place % V]) for value, place in pairs]
