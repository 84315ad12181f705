"""Paths where weights are under no usual name, or are not at all: what is there, and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from convert.formats.kinds import container_of
from training_recipe.runs.folder import STEP_FOLDER
from transformer_spec import UserError
from transformer_spec.errors import broken_link

# What trainers leave beside weights, and is none.
BESIDE = re.compile(
    r"(optimizer|optim|scheduler|scaler|random_states|rng_state|training_args|trainer_state)\b.*"
    r"|.*_optim_states\.pt|(random_states|rng_state)_\d+.*|.*\.(json|txt|md|model|spm|py|yaml|yml)"
)
DISTRIBUTED = ".distcp"
GATHER = (
    "gather them with the script that DeepSpeed leaves in the folder above: python "
    "zero_to_fp32.py . pytorch_model.bin"
)
# Files that are parts of one model, and what joins them.
PARTS = (
    (
        re.compile(r".+-\d+-of-\d+\.\w+").fullmatch,
        "they are shards of one model, and the index that lists them (such as "
        "model.safetensors.index.json) is not there: put it beside them",
    ),
    (
        re.compile(r"zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt").fullmatch,
        f"they are parts of DeepSpeed's ZeRO stage 3; {GATHER}",
    ),
)
MOST = 50  # files that are looked at


def check_undistributed(files: Sequence[Path]) -> None:
    """UserError where files are parts that torch.distributed.checkpoint has written."""
    parts = [path for path in files if path.suffix == DISTRIBUTED]
    if parts:
        folder = parts[0].parent
        raise UserError(
            f"{folder} is a checkpoint of torch.distributed.checkpoint, whose tensors are cut "
            "among its files; join them with python -m torch.distributed.checkpoint.format_utils "
            f"dcp_to_torch {folder} joined.pt, and give joined.pt"
        )


def only_weights(folder: Path, usual: Sequence[str]) -> Path:
    """The one file of weights in a folder by its content; none or several are a UserError.

    What else lies there is named with what to do about it.
    """
    weights, told = list[Path](), list[str]()
    for path in _candidates(folder, usual):
        try:
            weights += [path] if container_of(path) else []
        except UserError as error:
            told.append(str(error))
    if len(weights) == 1:
        return weights[0]
    if weights:
        names = ", ".join(path.name for path in weights)
        raise UserError(f"{folder} holds several files of weights ({names}); {_advice(weights)}")
    links = sorted(folder.iterdir(), key=lambda path: (path.name not in usual, path.name))
    told += filter(None, map(broken_link, links))
    told += [f"{path}: this user may not look into it" for path in closed_in(folder)]
    found = f": {told[0]}" if told else ""
    more = f" (and {len(told) - 1} more such)" if len(told) > 1 else ""
    raise UserError(
        f"{folder} should hold one of {', '.join(usual)}; it has none of them{found}{more}"
        + models_below(folder)
    )


def closed_in(folder: Path) -> list[Path]:
    """The folders in a folder that this user may not look into."""
    places = (path for path in sorted(folder.iterdir()) if path.is_dir())
    return [path for path in places if not os.access(path, os.R_OK | os.X_OK)]


def _candidates(folder: Path, usual: Sequence[str]) -> list[Path]:
    """The files whose names do not say that they are no weights; too many are a UserError."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    check_undistributed(files)
    found = [p for p in files if not BESIDE.fullmatch(p.name) and not p.name.startswith(".")]
    if len(found) > MOST:
        raise UserError(
            f"{folder} should hold one of {', '.join(usual)}; it has none of them, and "
            f"{len(found)} files that could be weights by their names, which are looked into up "
            f"to {MOST}; {_advice(found)}{models_below(folder)}"
        )
    return found


def _advice(files: Sequence[Path]) -> str:
    """What to do with several files that could be weights."""
    joined = (told for part, told in PARTS if all(part(path.name) for path in files))
    return next(joined, "name the one to read")


def models_below(folder: Path) -> str:
    """What lies in a folder of models, as runs/ is: the first names, to give one of them.

    Of the checkpoints of a run the newest are named, and the run.
    """
    steps = [path.name for path in sorted(folder.iterdir()) if STEP_FOLDER.fullmatch(path.name)]
    if steps and (folder.parent / "config.json").is_file():
        others = f" ({len(steps) - 3} older)" if len(steps) > 3 else ""
        named = f"{', '.join(steps[-3:])}{others}"
        return f"; give the run, {folder.parent}, or one of its checkpoints: {named}"
    commits = sorted(path.parent for path in folder.glob("snapshots/*/config.json"))
    if commits:
        some = ", ".join(map(str, commits[:3]))
        return f"; it is a repository in the Hub's cache: give the files of a commit, {some}"
    names = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if not names:
        return ""
    others = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
    return f"; give one of the models in it: {', '.join(names[:3])}{others}"
