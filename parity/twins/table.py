"""The bounds of the design, each measured beside what it allows."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

import flax_transformer
import flax_transformer.decoding_state as flax_decoding
import torch_transformer.decoding_state as torch_decoding
from convert import flax_to_torch, torch_to_flax
from convert.checkpoints import read_checkpoint, write_flax_checkpoint, write_torch_checkpoint
from flax_transformer.step import make_backend as make_jax
from parity.forward.measures import FLOAT32_BOUND, largest, over_spread, worst
from parity.forward.number_formats import as_float64
from parity.frameworks import check_devices, exact_numbers
from parity.twins.cases import config_of, inputs, pairwise_configs
from parity.twins.pair import Twins, bottom_up, float32_errors, loss_and_gradients
from torch_transformer.step import make_backend as make_torch
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import Batch
from training_recipe.first_weights import first_weights
from training_recipe.options.schedule import learning_rate
from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig, initial_weights

WIDTH = len("float32 logits of torch, base size, vs float64")
HEADING = f"{'largest difference of':{WIDTH}}   measured      bound  configs"
BASE_DEPTH = {"num_encoder_layers": 6, "num_decoder_layers": 6, "num_heads": 8}


class Row(NamedTuple):
    """One line of the table; ``measured`` is the largest of ``configs`` configs."""

    what: str
    measured: float
    bound: float
    configs: int = 1

    @property
    def holds(self) -> bool:
        return self.measured <= self.bound


def table_rows(device: str) -> Iterator[Row]:
    """Every row, largest over all configs, as it is measured; float64 but where it says float32."""
    exact_numbers()
    check_devices([("both twins", framework, device) for framework in ("torch", "jax")])
    configs = pairwise_configs()
    parts: dict[str, float] = {}
    for config in tqdm(configs, desc="parts", disable=None):
        twins = Twins(config, "float64", device)
        for part, difference in bottom_up(twins).items():
            parts[part] = worst(parts.get(part, 0.0), difference)
    for part, difference in parts.items():
        yield Row(part, difference, 1e-11, len(configs))
    yield from gradient_rows(configs[::3], device)
    yield Row("100 AdamW steps, loss", largest(hundred_steps(device)), 1e-9)
    for twin, difference in cached_decoding(device).items():
        yield Row(f"cached decoding of {twin} vs full forward", difference, 1e-11)
    yield from float32_rows(device)
    yield Row("weights there and back, changed bytes", changed_bytes(configs), 0, len(configs))


def gradient_rows(configs: list[TransformerConfig], device: str) -> Iterator[Row]:
    loss = gradient = 0.0
    for number, config in enumerate(tqdm(configs, desc="gradients", disable=None)):
        differences, _ = loss_and_gradients(Twins(config, "float64", device), 0.1, number)
        loss = worst(loss, differences.pop("loss"))
        gradient = worst(gradient, float(np.max(list(differences.values()))))
    yield Row("loss, dropout on", loss, 1e-10, len(configs))
    yield Row("every gradient, dropout on", gradient, 1e-10, len(configs))


def hundred_steps(device: str) -> np.ndarray:
    """Differences of the mean loss of 100 optimizer steps from the same weights and batches."""
    config = config_of({"norm_position": "pre", "dropout": 0.0})
    settings = TrainingSettings(dtype="float64", device=device, warmup_steps=10)
    state = Checkpoint(first_weights(config, settings))
    backends = make_torch(config, settings, state), make_jax(config, settings, state)
    found = []
    for step in range(1, 101):
        source, target = inputs(config, step % 5)
        batch = Batch(source, target[:, :-1].copy(), target[:, 1:].copy())
        rate = learning_rate(step, settings)
        ours, theirs = (b.train_step([batch], step, rate).loss_sum for b in backends)
        found.append((float(ours) - float(theirs)) / batch.tokens)
    return np.array(found)


def cached_decoding(device: str) -> dict[str, float]:
    """Largest difference of each twin's logits, one token at a time, from the other's all at once.

    Both differ from what the other computes at once by rounding alone, and so from their own.
    """
    twins = Twins(config_of({"positions_skip_padding": True}), "float64", device)
    our_ids = twins.to_torch(twins.source), twins.to_torch(twins.target)
    their_ids = twins.to_jax(twins.source), twins.to_jax(twins.target)
    real = twins.target != twins.config.pad_id
    with torch.no_grad():
        full = {
            "torch": np.asarray(twins.flax(*their_ids)),
            "jax": twins.torch(*our_ids).cpu().numpy(),
        }
        cached = {
            "torch": one_by_one(torch_decoding, twins.torch, *our_ids),
            "jax": one_by_one(flax_decoding, twins.flax, *their_ids),
        }
    return {twin: largest((cached[twin] - full[twin])[real]) for twin in full}


def one_by_one(decoding: ModuleType, model: Any, source: Any, target: Any) -> np.ndarray:
    """Logits (B, T, V) of a twin with its cache, a token of each row at a time."""
    parts, T = [], target.shape[1]
    state = decoding.start(model, model.encode(source), source, T, 1)
    for column in range(T):
        logits, state = decoding.next_logits(model, target[:, column : column + 1], state)
        parts.append(logits)
    return np.concatenate([as_float64(logits) for logits in parts], 1)


def float32_rows(device: str) -> Iterator[Row]:
    """Each twin against a fixed bound on errors over the logits' spread, where that is above 1, and
    against what float32 allows a model of that size.
    """
    width = {"hidden_dim": 512, "inner_dim": 2048, "target_vocab_size": 997}
    errors = float32_errors(config_of(BASE_DEPTH | width), device)
    found = {"torch": errors.torch, "jax": errors.jax}
    for twin, error in found.items():
        over = over_spread(error, errors.spread)
        yield Row(f"float32 logits of {twin}, base size, vs float64", over, FLOAT32_BOUND)
    for twin, error in found.items():
        yield Row(f"the same of {twin}, vs sums term by term", error, errors.allowed)


def changed_bytes(configs: list[TransformerConfig]) -> float:
    """Bytes that differ after torch -> flax -> torch, in memory and through both containers."""
    changed = 0
    for config in configs:
        weights = initial_weights(config, 3)
        there = torch_to_flax(weights, config)
        model = flax_transformer.Transformer.skeleton(config)
        flax_transformer.load_weights(model, there)
        back = flax_to_torch(flax_transformer.weights(model), config)
        changed += sum(weights[name].tobytes() != back[name].tobytes() for name in weights)
    return float(changed + changed_file_bytes())


def changed_file_bytes() -> int:
    config = config_of({"norm_position": "pre"})
    settings = TrainingSettings(device="cpu")
    backend = make_torch(config, settings, Checkpoint(first_weights(config, settings)))
    with tempfile.TemporaryDirectory() as folder:
        first, middle, last = (Path(folder) / name for name in ("torch", "flax", "again"))
        for path in (first, middle, last):
            path.mkdir()
        write_torch_checkpoint(first, backend.state())
        write_flax_checkpoint(middle, read_checkpoint(first))
        write_torch_checkpoint(last, read_checkpoint(middle))
        files = sorted(path.name for path in first.iterdir())
        return sum((first / f).read_bytes() != (last / f).read_bytes() for f in files)


def in_words(row: Row) -> str:
    """A row as a line of the table below HEADING."""
    numbers = f"{row.measured:9.3e}  {row.bound:9.3e}  {row.configs:7}"
    return f"{row.what:{WIDTH}}  {numbers}  {'PASS' if row.holds else 'FAIL'}"


def verdict_of(rows: list[Row]) -> str:
    """The result in one line, with the figures of the first row that does not hold."""
    failed = [row for row in rows if not row.holds]
    if not failed:
        return f"PASS: the twins are the same function: all {len(rows)} rows are within bounds"
    first = failed[0]
    return (
        f"FAIL: {len(failed)} of {len(rows)} rows are beyond their bounds, first {first.what}: "
        f"{first.measured:.6e}, allowed {first.bound:.6e}"
    )
