"""Fine-tune a model with nnx.Optimizer and plain optax; the twin of finetune_torch.py.

python examples/finetune_flax.py FOLDER PAIRS [STEPS]: FOLDER is a run or a converted folder with
its vocabulary, PAIRS a text file with a source, a tab and its target on each line.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import flax_transformer
from training_recipe.text.model_vocabularies import load_vocabularies
from transformer_spec import TransformerConfig, UserError

ROWS, RATE = 32, 3e-4
ADAMW = {"b1": 0.9, "b2": 0.98, "eps": 1e-9, "weight_decay": 0.01}


def read_batches(pairs: Path, folder: Path, config: TransformerConfig) -> list[list[np.ndarray]]:
    """Source (B, S), target from the start and target to the end (B, T), in batches of ROWS."""
    texts = [line.split("\t") for line in pairs.read_text("utf-8").splitlines()]
    found = []
    for side, vocabulary in enumerate(load_vocabularies(folder / "vocabulary", config)):
        ids = [[*vocabulary.encode(text[side]), config.eos_id] for text in texts]
        longest = max(map(len, ids))
        found.append(np.array([row + [config.pad_id] * (longest - len(row)) for row in ids]))
    source, wanted = found
    given = np.insert(wanted[:, :-1], 0, config.decoder_start_id, axis=1)
    cuts = range(ROWS, len(texts), ROWS)
    return list(zip(*(np.split(part, cuts) for part in (source, given, wanted)), strict=True))


@nnx.jit
def train_step(model, optimizer: nnx.Optimizer, source, given, wanted) -> Array:
    """One step; the loss a target token before it."""

    def mean_loss(model) -> Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(model(source, given), wanted)
        real = wanted != model.config.pad_id
        return jnp.sum(losses * real) / jnp.sum(real)

    loss, gradients = nnx.value_and_grad(mean_loss)(model)
    optimizer.update(model, gradients)
    return loss


def main(folder: str, pairs: str, steps: str = "100") -> list[float]:
    """Train, and print the loss of every step."""
    model, losses = flax_transformer.load(folder), []
    batches = read_batches(Path(pairs), Path(folder), model.config)
    optimizer = nnx.Optimizer(model, optax.adamw(RATE, **ADAMW), wrt=nnx.Param)
    for step in range(int(steps)):
        losses.append(float(train_step(model, optimizer, *batches[step % len(batches)])))
        print(f"step {step + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(__doc__)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
