"""Runs of random weights, and Python in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import translate
from convert.checkpoints import Checkpoint, write_flax_checkpoint, write_torch_checkpoint
from training_recipe.options.settings import TrainingSettings
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.record import RunRecord
from training_recipe.text.vocabulary import build_vocabulary
from transformer_spec import TransformerConfig, weight_shapes

ROOT = Path(translate.__file__).parent
WORDS = ["abcab", "ba", "", "cabbage", "abc", "gag"]
WRITERS = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}


def vocabularies():
    letters = build_vocabulary("characters", ["abcdefgA"])
    return letters, build_vocabulary("whitespace", ["AA BB CC DD EE FF GG"])


def make_run(path, writer, steps=(10,), seed=0, dtype=np.float32, max_length=12):
    """A run folder of random weights, as training would have left it."""
    source, target = vocabularies()
    config = TransformerConfig(
        source_vocab_size=len(source), target_vocab_size=len(target), hidden_dim=8, inner_dim=8,
        num_heads=2, num_encoder_layers=1, num_decoder_layers=1, max_length=max_length,
    )  # fmt: skip
    settings = TrainingSettings(source_vocabulary="characters", target_vocabulary="whitespace")

    def fill(run):
        config.save(run.config)
        run.vocabulary.mkdir()
        source.save(run.vocabulary, "source")
        target.save(run.vocabulary, "target")
        RunRecord(settings, writer, "", steps[-1] if steps else None).save(run.settings)

    run = RunFolder.create(path, fill)
    for number, step in enumerate(steps):
        run.checkpoint(step).mkdir()
        draw = np.random.default_rng(seed + number)
        shapes = weight_shapes(config).items()
        weights = {name: draw.normal(0, 0.6, shape).astype(dtype) for name, shape in shapes}
        WRITERS[writer](run.checkpoint(step), Checkpoint(weights))
    return path


def python(code, folder, **files):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    files = {"capture_output": True} if not files else {"stderr": subprocess.PIPE} | files
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, text=True, timeout=60, **files
    )
