"""What benchmarks/train.py compares: each trains the same model on the same batches.

Ours are the backends of ``train.py`` with their usual settings, which also smooth labels and clip
gradients; the others are in outside_training.py. In bfloat16 weights stay float32: ours by
``train.py --dtype bfloat16``, others by ``torch.autocast``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.outside_training import (
    LEARNING_RATE,
    Step,
    joeynmt,
    marian,
    t5,
    torch_nn,
    torch_threads,
    x_transformers,
)
from benchmarks.training_sizes import SIZES
from benchmarks.turns import JAX, LOW, TORCH, Turn, use_cores
from training_recipe.batching.batches import Batch
from transformer_spec import TransformerConfig

T5 = "T5ForConditionalGeneration"


def make(name: str, task: dict[str, Any]) -> tuple[str, Turn]:
    """Version and turn of a contender; ``task`` names the size, dropout, its rng and threads."""
    size, threads = SIZES[task["size"]], task["threads"]
    config, batches = size.config(task["dropout"]), size.make_batches()
    version, step = CONTENDERS[name](config, task["dropout_rng"], threads)
    targets = sum(batch.tokens for batch in batches)
    both = targets + sum(batch.source_tokens for batch in batches)

    def turn(number: int) -> dict[str, Any]:
        last = None
        for batch in batches:
            last = step(batch)
        loss = float(last)  # pyright: ignore[reportArgumentType]  # waits for the last step
        done = {"target_tokens": targets, "tokens": both, "steps": len(batches)}
        return {"loss": loss, "done": done}

    return version, turn


def suits(name: str, size: str) -> bool:
    """Whether a contender can train the model of a size: T5 is ours and its library's alone."""
    return name in OURS or (name in THEIR_T5) == (SIZES[size].form == "t5")


def ours(make_backend: Callable, settings: Any, config: TransformerConfig) -> Step:
    from twinformer.training.states import first_state

    backend, count = make_backend(config, settings, first_state(config, settings)), [0]

    def step(batch: Batch) -> object:
        count[0] += 1
        result = backend.train_step([batch], count[0], LEARNING_RATE)
        return result.loss_sum / batch.tokens + 0 * result.gradient_norm

    return step


def ours_jax(
    config: TransformerConfig, dropout_rng: str, threads: int, dtype: str = "float32"
) -> tuple[str, Step]:
    use_cores(threads)
    import jax

    from flax_transformer.process import prepare_process
    from flax_transformer.step import make_backend
    from training_recipe.options.settings import TrainingSettings

    settings = TrainingSettings(dropout_rng=dropout_rng, device="cpu", dtype=dtype)
    prepare_process(settings.device)
    return f"jax {jax.__version__}", ours(make_backend, settings, config)


def ours_torch(
    config: TransformerConfig, dropout_rng: str, threads: int, dtype: str = "float32"
) -> tuple[str, Step]:
    version = torch_threads(threads)
    from torch_transformer.process import prepare_process
    from torch_transformer.step import make_backend
    from training_recipe.options.settings import TrainingSettings

    settings = TrainingSettings(dropout_rng=dropout_rng, device="cpu", dtype=dtype)
    prepare_process(settings.device)
    return version, ours(make_backend, settings, config)


CONTENDERS: dict[str, Callable[[TransformerConfig, str, int], tuple[str, Step]]] = {
    JAX: ours_jax,
    TORCH: ours_torch,
    "torch.nn.Transformer": torch_nn,
    "MarianMTModel": marian,
    f"{JAX}, {LOW}": functools.partial(ours_jax, dtype=LOW),
    f"{TORCH}, {LOW}": functools.partial(ours_torch, dtype=LOW),
    f"MarianMTModel, {LOW}": functools.partial(marian, dtype=LOW),
    "x-transformers": x_transformers,
    "JoeyNMT": joeynmt,
    T5: t5,
    f"{T5}, {LOW}": functools.partial(t5, dtype=LOW),
}
OURS = [name for name in CONTENDERS if name.startswith("twinformer")]
THEIR_T5 = [T5, f"{T5}, {LOW}"]
MODULES = {
    T5: "transformers",
    f"{T5}, {LOW}": "transformers",
    "MarianMTModel": "transformers",
    f"MarianMTModel, {LOW}": "transformers",
    "x-transformers": "x_transformers",
    "JoeyNMT": "joeynmt",
}
