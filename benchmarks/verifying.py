"""python -m benchmarks.verifying: what it costs to compare weights while they are read, or saved.

A checkpoint with the weights and moments of a base-size model is written by either framework's
writer and read in one process: weights for translation (``load_weights_of``), all of it as a
resumed run does (``read_checkpoint``), and converted into the other twin's safetensors, each with
and without ``verify``. Both take turns, so that the ratio compares like with like; the median of
the turns is printed. Files are in memory: where the disk is slower than SHA-256, less is seen of
it. ``writing`` is the checkpoint with its record and without.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.translation_model import base_config, random_weights
from convert.checkpoints import (
    Checkpoint,
    checkpoint,
    load_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
    write_torch_checkpoint,
)
from convert.conversion import ConversionRequest, convert
from transformer_spec import TransformerConfig, trained_names

WRITERS = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}
Ways = dict[str, tuple[Callable[[], object], Callable[[], object]]]
