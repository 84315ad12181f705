"""One framework alone trains, translates and converts, and says what the other would need."""

from __future__ import annotations

import json

from release.environments import Environment
from release.findings import Finding

SMALL = (
    "--hidden-dim 8 --inner-dim 8 --num-heads 2 --num-encoder-layers 1 --num-decoder-layers 1 "
    "--max-length 16 --steps 2 --batch-tokens 32 --batch-shapes 1 --valid-examples 2 "
    "--test-examples 2 --source-vocabulary characters --target-vocabulary characters --beam 1"
).split()
OTHER = {"jax": "torch", "torch": "jax"}
# Exit status and what is said of a model in the framework that is not there.
REFUSAL = """
import json, twinformer
try:
    twinformer.load("theirs", backend={other!r})
except twinformer.UserError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps(None))
"""


def works_alone(environment: Environment, framework: str) -> Finding:
    """Train, translate, convert and load with ``framework``; the other one is refused by name."""
    other, work = OTHER[framework], environment.work
    work.mkdir(parents=True, exist_ok=True)
    pairs = [f"{a}{b}\t{b}{a}" for a in "abcdefg" for b in "abcdefg"]
    (work / "pairs.tsv").write_text("Q\tA\n" + "\n".join(pairs) + "\n", encoding="utf-8")
    data = "--data", "pairs.tsv", "--columns", "Q,A", "--out", "run"
    environment.run("twinformer", "train", "--backend", framework, *data, *SMALL)
    environment.run("twinformer", "translate", "run", "ab", "--backend", framework)
    environment.run("twinformer", "convert", "run", "theirs", "--to", "torch")
    environment.run("twinformer", "convert", "theirs", "again", "--to", "flax")
    for folder in ("run", "theirs", "again"):
        code = f"import twinformer; twinformer.load({folder!r}, backend={framework!r})"
        environment.run("python", "-c", code)
    told = json.loads(environment.run("python", "-c", REFUSAL.format(other=other)).splitlines()[-1])
    return refused(told, other)


def refused(told: str | None, other: str) -> Finding:
    """``told`` is the error of a model asked for in ``other``; None where there was none."""
    faults = []
    if told is None:
        faults.append(f"{other} is installed, or was not asked for")
    elif other not in told:
        faults.append(f"the error does not name {other}: {told}")
    return Finding(faults, f"asked for the other: {told}")
