"""What transformers' generate finds with a folder of the Hub, and what our search finds with it."""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Judge:
    """The library's model of a folder, in float64 unless told otherwise, and its settings."""

    def __init__(self, folder: Path, dtype: str = "float64") -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        self.folder = folder
        self.model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
        self.model = self.model.to(getattr(torch, dtype)).eval()

    @property
    def settings(self) -> dict[str, Any]:
        """The folder's generation settings, as the library has them."""
        return self.model.generation_config.to_diff_dict()

    def outputs(
        self, source: np.ndarray, settings: dict[str, Any], wide: bool = False
    ) -> tuple[list[list[list[int]]], list[list[float]]]:
        """Ids without start and end of each row's outputs, and their scores (none of greedy ones).

        ``source`` (B, S) is padded; ``wide`` has generate compute in float64, not in float32.
        """
        import torch
        from transformers import GenerationConfig

        config = GenerationConfig(**copy.deepcopy(settings))
        self.model.generation_config = config
        ids = torch.tensor(source, dtype=torch.int64)
        mask = (ids != self.model.config.pad_token_id).long()
        with torch.inference_mode(), widened() if wide else contextlib.nullcontext():
            found = self.model.generate(
                ids, attention_mask=mask, return_dict_in_generate=True, output_scores=True
            )
        ends = settings.get("eos_token_id", self.model.config.eos_token_id)
        ends = set(ends if isinstance(ends, list) else [ends])
        written = [until(row[1:], ends) for row in found.sequences.tolist()]
        scores = getattr(found, "sequences_scores", None)
        numbers = [float("nan")] * len(written) if scores is None else scores.tolist()
        each = len(written) // len(source)
        parts = range(0, len(written), each)
        return [written[n : n + each] for n in parts], [numbers[n : n + each] for n in parts]


def until(ids: list[int], ends: set[int]) -> list[int]:
    """The ids before the first of some."""
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]


@contextlib.contextmanager
def widened() -> Iterator[None]:
    """generate casts logits to float32 whatever the model computes in; here it does not."""
    import torch
    from transformers.generation import utils

    names = {name: getattr(torch, name) for name in dir(torch)}
    before = utils.torch
    wide = names | {"float32": torch.float64, "float": torch.float64}
    utils.torch = types.SimpleNamespace(**wide)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        utils.torch = before


def padded(rows: list[list[int]], pad_id: int) -> np.ndarray:
    """The rows as one array (B, S), the shorter ones with padding behind them."""
    source = np.full((len(rows), max(map(len, rows))), pad_id)
    for row, ids in zip(source, rows, strict=True):
        row[: len(ids)] = ids
    return source


def random_settings(
    number: int, base: dict[str, Any], vocabulary: int, likely: list[list[int]]
) -> dict[str, Any]:
    """Valid generation settings, drawn from a number; the ids are from ``likely`` outputs.

    About a third of what generate can be told is told it, and when to stop always.
    """
    rng = np.random.default_rng(number)
    beam = int(rng.choice([1, 2, 3, 4, 5]))
    end, words = base["eos_token_id"], [ids for ids in likely if len(ids) > 3]
    drawn = drawn_numbers(rng, beam) | drawn_ids(rng, words, end)
    drawn["forced_bos_token_id"] = int(rng.integers(vocabulary))
    told = {key: value for key, value in drawn.items() if rng.random() < 0.35}
    told["early_stopping"] = drawn["early_stopping"]
    if told.get("forced_bos_token_id") in told.get("suppress_tokens", ()):
        del told["suppress_tokens"]  # generate refuses both together
    length = {"max_length": int(rng.integers(5, 18))}
    if rng.random() < 0.2:
        length = {"max_new_tokens": int(rng.integers(5, 16)), "min_new_tokens": 3}
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    return {name: base[name] for name in names} | {"num_beams": beam} | length | told


def drawn_numbers(rng: np.random.Generator, beam: int) -> dict[str, Any]:
    """A value for each setting that is no token id."""
    return {
        "length_penalty": float(rng.choice([-1.0, 0.0, 0.6, 1.0, 2.0])),
        "early_stopping": [True, False, "never"][rng.integers(3)] if beam > 1 else None,
        "min_length": int(rng.integers(2, 6)),
        "no_repeat_ngram_size": int(rng.integers(1, 4)),
        "repetition_penalty": float(rng.choice([0.8, 1.3, 2.5])),
        "renormalize_logits": True,
        "encoder_no_repeat_ngram_size": int(rng.integers(1, 4)),
        "encoder_repetition_penalty": float(rng.choice([0.7, 1.5])),
        "exponential_decay_length_penalty": [int(rng.integers(1, 6)), 1.1],
        "num_return_sequences": int(rng.integers(1, beam + 1)),
    }


def drawn_ids(rng: np.random.Generator, words: list[list[int]], end: int) -> dict[str, Any]:
    """A value for each setting of token ids, of which the model would write most."""

    def some(count: int) -> list[int]:
        return [int(rng.choice(words[rng.integers(len(words))])) for _ in range(count)]

    def sequence() -> list[int]:
        ids = words[rng.integers(len(words))]
        first, size = rng.integers(len(ids) - 2), rng.integers(1, 4)
        return [int(token) for token in ids[first : first + size]]

    return {
        "bad_words_ids": [sequence() for _ in range(rng.integers(1, 6))],
        "forced_eos_token_id": end,
        "suppress_tokens": some(3),
        "begin_suppress_tokens": some(4),
        "eos_token_id": [end, *some(2)],
        "decoder_start_token_id": some(1)[0],
    }
