"""Fine-tune a model with torch.optim.AdamW; the twin of finetune_flax.py.

python examples/finetune_torch.py FOLDER PAIRS [STEPS]: FOLDER is a run or a converted folder with
its vocabulary, PAIRS a text file with a source, a tab and its target on each line.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import torch_transformer
from training_recipe.text.model_vocabularies import load_vocabularies
from transformer_spec import TransformerConfig, UserError

ROWS, RATE = 32, 3e-4
ADAMW = {"betas": (0.9, 0.98), "eps": 1e-9, "weight_decay": 0.01}


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


def train_step(model, optimizer: torch.optim.Optimizer, source, given, wanted) -> Tensor:
    """One step; the loss a target token before it."""
    logits = model(torch.tensor(source), torch.tensor(given)).flatten(0, 1)
    targets = torch.tensor(wanted).flatten()
    loss = cross_entropy(logits, targets, ignore_index=model.config.pad_id)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def main(folder: str, pairs: str, steps: str = "100") -> list[float]:
    """Train, and print the loss of every step."""
    model, losses = torch_transformer.load(folder), []
    batches = read_batches(Path(pairs), Path(folder), model.config)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, **ADAMW)
    for step in range(int(steps)):
        losses.append(float(train_step(model, optimizer, *batches[step % len(batches)])))
        print(f"step {step + 1}: loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(__doc__)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
