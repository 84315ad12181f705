"""``python -m parity mutations``: what every planted bug does to the logits, and who would see it.

The model is of base size with random numbers, biases and norms too. Published checks compare in
float32: those of MaxText (its documented command allows a largest KL divergence of 0.015) and of
transformers 4 (4e-2 on logits from Flax to PyTorch, 1e-4 from PyTorch to Flax).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from parity.certificate import report_json
from parity.needed import both_frameworks, exact_numbers
from training_recipe.options.parser import Parser
from transformer_spec import TransformerConfig
from transformer_spec.errors import exit_status

PUBLISHED = {
    "MaxText, KL 0.015": ("kl", 0.015),
    "transformers, 4e-2": ("float32", 4e-2),
    "transformers, 1e-4": ("float32", 1e-4),
}
BOUND = 1e-11


def main(arguments: list[str]) -> int:
    return exit_status(
        lambda: run(parser().parse_args(arguments)), "stopped before every bug was planted"
    )


def parser() -> argparse.ArgumentParser:
    result = Parser(prog="python -m parity mutations", description=(__doc__ or "").split("\n\n")[0])
    result.add_argument("--layers", type=int, default=6, help="layers of each half [6]")
    result.add_argument("--width", type=int, default=512, help="width D; D/64 heads [512]")
    result.add_argument("--vocabulary", type=int, default=8000, help="words [8000]")
    result.add_argument("--json", action="store_true", help="print the rows as JSON")
    return result


def run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    config = model_config(options.layers, options.width, options.vocabulary)
    rows = list(tqdm(measured(config), unit="bug", disable=None, leave=False))
    print(report_json(rows) if options.json else "\n".join(markdown(rows)))
    return 0 if not any(row["float64"] <= BOUND for row in rows) else 1


def model_config(layers: int, width: int, vocabulary: int) -> TransformerConfig:
    """A pre-norm model in which every planted bug has something to spoil."""
    return TransformerConfig(
        vocabulary, vocabulary, width, 4 * width, max(2, width // 64), layers, layers, 64,
        norm_position="pre", activation="gelu", pad_id=1, bos_id=0, embedding_norm=True,
    )  # fmt: skip


def measured(config: TransformerConfig) -> Iterator[dict[str, Any]]:
    """The first variant of every mutation, planted in the same model."""
    import numpy as np

    with both_frameworks():
        from parity.explain import run as trace
        from parity.inputs import generated
        from parity.measures import divergence
        from parity.mutations import MUTATIONS
        from parity.substeps import LOGITS

    exact_numbers()
    right, ids = random_subject(config), generated(config)[0]
    mask = ids.real(config)[1]
    truth = {wide: trace(right, ids, dtype=wide)[LOGITS][mask] for wide in ("float64", "float32")}
    for mutation in MUTATIONS:
        for what, subject in list(mutation.variants(right))[:1]:
            found = {wide: trace(subject, ids, dtype=wide)[LOGITS][mask] for wide in truth}
            yield {
                "bug": mutation.name,
                "planted": what,
                **{wide: float(np.abs(found[wide] - truth[wide]).max()) for wide in truth},
                "kl": float(divergence(truth["float32"], found["float32"]).max()),
            }


def random_subject(config: TransformerConfig):
    """A model with no number at zero or one, where a bug could hide."""
    import numpy as np

    from parity.subjects import Subject
    from transformer_spec import initial_weights

    draw = np.random.default_rng(1)
    weights = {
        name: array + draw.normal(0, 0.02, array.shape)
        for name, array in initial_weights(config, 0, np.float64).items()
    }
    return Subject(config, weights)


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """A table; "passes" where a published check would let the bug through."""
    lines = [
        f"| planted bug | float64 | float32 | KL | {' | '.join(PUBLISHED)} |",
        "|---|---|---|---|" + "---|" * len(PUBLISHED),
    ]
    for row in rows:
        passes = ["passes" if row[k] <= bound else "caught" for k, bound in PUBLISHED.values()]
        numbers = " | ".join(f"{row[name]:.1e}" for name in ("float64", "float32", "kl"))
        lines.append(f"| {row['bug']}: {row['planted']} | {numbers} | {' | '.join(passes)} |")
    counts = [sum(row[k] <= bound for row in rows) for k, bound in PUBLISHED.values()]
    through = " | ".join(f"{count} of {len(rows)} pass" for count in counts)
    return [*lines, f"| all | | | | {through} |"]
