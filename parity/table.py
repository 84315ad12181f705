"""The bounds of the design, each measured beside what it allows."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

import flax_transformer
from convert import flax_to_torch, torch_to_flax
from convert.checkpoints import read_checkpoint, write_flax_checkpoint, write_torch_checkpoint
from flax_transformer.training import make_backend as make_jax
from parity.cases import config_of, inputs, pairwise_configs
from parity.measures import largest, worst
from parity.needed import check_devices, exact_numbers
from parity.twins import Twins, bottom_up, float32_errors, loss_and_gradients
from torch_transformer.decoding_state import next_logits, start
from torch_transformer.training import make_backend as make_torch
from training_recipe.batches import Batch
from training_recipe.schedule import learning_rate
from training_recipe.settings import TrainingSettings
from transformer_spec import TransformerConfig, initial_weights

BASE_DEPTH = {"num_encoder_layers": 6, "num_decoder_layers": 6, "num_heads": 8}


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.bound


def table_rows(device: str) -> list[Row]:
    """Every row, largest over all configs; float64 unless the row says float32."""
    exact_numbers()
    check_devices([("both twins", framework, device) for framework in ("torch", "jax")])
    configs = pairwise_configs()
    rows = []
    parts: dict[str, float] = {}
    for config in tqdm(configs, desc="parts", disable=None):
        twins = Twins(config, "float64", device)
        for part, difference in bottom_up(twins).items():
            parts[part] = worst(parts.get(part, 0.0), difference)
    rows += [Row(part, difference, 1e-11) for part, difference in parts.items()]
    rows += gradient_rows(configs[::3], device)
    rows.append(Row("100 AdamW steps, loss", largest(hundred_steps(device)), 1e-9))
    rows.append(Row("cached decoding vs full forward", cached_decoding(device), 1e-11))
    rows += float32_rows(device)
    rows.append(Row("weights there and back, changed bytes", changed_bytes(), 0))
    return rows


def gradient_rows(configs: list[TransformerConfig], device: str) -> Iterator[Row]:
    loss = gradient = 0.0
    for number, config in enumerate(tqdm(configs, desc="gradients", disable=None)):
        differences, _ = loss_and_gradients(Twins(config, "float64", device), 0.1, number)
        loss = worst(loss, differences.pop("loss"))
        gradient = worst(gradient, float(np.max(list(differences.values()))))
    yield Row("loss, dropout on", loss, 1e-10)
    yield Row("every gradient, dropout on", gradient, 1e-10)


def hundred_steps(device: str) -> np.ndarray:
    """Differences of the mean loss of 100 optimizer steps from the same weights and batches."""
    config = config_of({"norm_position": "pre", "dropout": 0.0})
    settings = TrainingSettings(dtype="float64", device=device, warmup_steps=10)
    backends = make_torch(config, settings), make_jax(config, settings)
    found = []
    for step in range(1, 101):
        source, target = inputs(config, step % 5)
        batch = Batch(source, target[:, :-1].copy(), target[:, 1:].copy())
        rate = learning_rate(step, settings)
        ours, theirs = (b.train_step(batch, step, rate).loss_sum for b in backends)
        found.append((float(ours) - float(theirs)) / batch.tokens)
    return np.array(found)


def cached_decoding(device: str) -> float:
    """Largest difference of the PyTorch twin's logits, one token at a time, from all at once."""
    twins = Twins(config_of({"positions_skip_padding": True}), "float64", device)
    with torch.no_grad():
        source, target = twins.to_torch(twins.source), twins.to_torch(twins.target)
        memory = twins.torch.encode(source)
        state = start(twins.torch, memory, source, target.shape[1], 1)
        parts = []
        for column in range(target.shape[1]):
            logits, state = next_logits(twins.torch, target[:, column : column + 1], state)
            parts.append(logits)
    theirs = np.asarray(twins.flax(twins.to_jax(twins.source), twins.to_jax(twins.target)))
    real = twins.target != twins.config.pad_id
    return largest((torch.cat(parts, 1).cpu().numpy() - theirs)[real])


def float32_rows(device: str) -> Iterator[Row]:
    width = {"hidden_dim": 512, "inner_dim": 2048, "target_vocab_size": 997}
    errors = float32_errors(config_of(BASE_DEPTH | width), device)
    for twin, error in errors.items():
        yield Row(f"float32 logits of {twin}, base size, vs float64", error, 2e-5)
    yield Row("ratio of the two", max(errors.values()) / min(errors.values()), 2)


def changed_bytes() -> float:
    """Bytes that differ after torch -> flax -> torch, in memory and through both containers."""
    changed = 0
    for config in pairwise_configs():
        weights = initial_weights(config, 3)
        there = torch_to_flax(weights, config)
        model = flax_transformer.Transformer(config)
        flax_transformer.load_weights(model, there)
        back = flax_to_torch(flax_transformer.weights(model), config)
        changed += sum(weights[name].tobytes() != back[name].tobytes() for name in weights)
    return float(changed + changed_file_bytes())


def changed_file_bytes() -> int:
    config = config_of({"norm_position": "pre"})
    backend = make_torch(config, TrainingSettings(device="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        first, middle, last = (Path(folder) / name for name in ("torch", "flax", "again"))
        for path in (first, middle, last):
            path.mkdir()
        write_torch_checkpoint(first, backend.checkpoint())
        write_flax_checkpoint(middle, read_checkpoint(first))
        write_torch_checkpoint(last, read_checkpoint(middle))
        files = sorted(path.name for path in first.iterdir())
        return sum((first / f).read_bytes() != (last / f).read_bytes() for f in files)


def print_table(rows: list[Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps([row._asdict() | {"holds": row.holds} for row in rows], indent=2))
        return
    width = max(len(row.what) for row in rows)
    print(f"{'largest difference of':{width}}  measured     bound")
    for row in rows:
        verdict = "PASS" if row.holds else "FAIL"
        print(f"{row.what:{width}}  {row.measured:8.2g}  {row.bound:8.2g}  {verdict}")
