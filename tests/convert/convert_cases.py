"""A small run folder with every kind of file, as either backend leaves it."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from convert.__main__ import main
from convert.checkpoints import Checkpoint, write_flax_checkpoint, write_torch_checkpoint
from training_recipe.text.vocabulary import build_vocabulary
from transformer_spec import TransformerConfig, initial_weights, trained_names

CONFIG = TransformerConfig(
    source_vocab_size=11, target_vocab_size=11, hidden_dim=6, inner_dim=7, num_heads=2,
    num_encoder_layers=2, num_decoder_layers=1, max_length=5, encoder_positions="learned",
    tied_embeddings="target_output", output_bias="frozen",
)  # fmt: skip
WRITERS = {"torch": write_torch_checkpoint, "flax": write_flax_checkpoint}


def checkpoint(config: TransformerConfig = CONFIG, seed: int = 0, count: int = 30) -> Checkpoint:
    weights = initial_weights(config, seed)
    generator = np.random.default_rng(seed)

    def moments() -> dict[str, np.ndarray]:
        names = trained_names(config)
        return {n: generator.normal(size=weights[n].shape).astype(np.float32) for n in names}

    return Checkpoint(weights, moments(), moments(), count)


def write_run(folder: Path, twin: str, steps: tuple[int, ...] = (10, 20), best: int = 0) -> Path:
    """The checkpoint of each step is seeded with the step."""
    (folder / "vocabulary").mkdir(parents=True)
    for side in ("source", "target"):
        build_vocabulary("characters", ["abcdefg"]).save(folder / "vocabulary", side)
    CONFIG.save(folder / "config.json")
    (folder / "settings.json").write_text(json.dumps({"backend": twin}))
    for step in steps:
        place = folder / "checkpoints" / f"step_{step:08d}"
        place.mkdir(parents=True)
        WRITERS[twin](place, checkpoint(seed=step, count=step))
        (place / "progress.json").write_text("{}")
    if best:
        (folder / "best").symlink_to(f"checkpoints/step_{best:08d}")
    return folder


def config_flags(config: TransformerConfig) -> list[str]:
    """The flags that say a whole config."""
    flags = []
    for name, value in dataclasses.asdict(config).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags += [flag, str(value)]
    return flags


def convert(*arguments: object) -> None:
    """Run the command and insist that it succeeds."""
    assert main([str(argument) for argument in arguments]) == 0


def assert_same_arrays(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        same = (array.shape, array.dtype) == (other[name].shape, other[name].dtype)
        assert same and array.tobytes() == other[name].tobytes(), name


def fail(capsys, *arguments):
    """The one line that a failing command prints, status 2."""
    assert main([str(argument) for argument in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    return output.err


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
