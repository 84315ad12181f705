"""Calls of translate.py on one device, on several devices of JAX, or by processes of torchrun.

    python translate_mesh_cases.py FOLDER BACKEND DEVICES [CALL ...]

writes what came of each call to FOLDER/calls-BACKEND-DEVICES-INDEX.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import translate
from training_recipe.distributed.joining import Joining
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import ALONE, World
from transformer_spec import UserError
from twinformer import frameworks
from twinformer.translating.translator import Translator

TEXTS = ["abcab", "ba", "", "cabbage", "abc", "gag", "a", "fade", "bag"]
FILE, ONE, LONG = ["--file", "texts"], ["abc"], ["abc", "a" * 12]
# Batches of more texts than one device takes, of as many and of fewer.
CALLS: dict[str, list[str]] = {
    "greedy": [*FILE, "--beam", "1", "--batch-size", "2"],
    "beam": [*FILE, "--nbest", "2", "--scores", "--batch-size", "2"],
    "generate": [*FILE, "--rule", "generate", "--beam", "2"],
    "sample": [*FILE, "--sample", "--seed", "3", "--nbest", "2", "--scores"],
    "one text": [*ONE, "--scores"],
    "no text": [""],
    "too long": LONG,
    "skipped": [*LONG, "--skip-long"],
    "drawn": ["abc", "", "ba", "--attention", "BACKEND-DEVICES.png"],
    "to a file": [*FILE, "--output", "written", "--batch-size", "2"],
    "to a full disk": [*ONE, "--output", "/dev/full"],
    "no checkpoint": ["--checkpoint", "7", *ONE],
    "unlike": [*ONE, "--max-length", "3"],
    "exact": [*FILE, "--nbest", "2", "--scores", "--batch-size", "2"],
}


def called(arguments: list[str]) -> dict[str, Any]:
    """What a call of the command ends with and says."""
    out, said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        status = translate.main(arguments)
    out.flush()
    return {"status": status, "out": out.buffer.getvalue().decode(), "said": said.getvalue()}


def words(name: str, backend: str, world: World) -> list[str]:
    """The arguments of a call; one call is not the same in every process."""
    run = f"exact-{backend}" if name == "exact" else f"run-{backend}"
    devices = f"{world.mesh.devices}.png"
    said = [w.replace("BACKEND", backend).replace("DEVICES.png", devices) for w in CALLS[name]]
    if name == "unlike":
        said[-1] = str(int(said[-1]) + world.processes.index)
    return [run, "--backend", backend, *said]


def outcomes(backend: str, world: World, names: list[str]) -> dict[str, Any]:
    """What came of every call, and of calls from Python."""
    found: dict[str, Any] = {name: called(words(name, backend, world)) for name in names}
    mesh = None if world.is_one_device else str(world.mesh)
    found["python"] = from_python(
        Translator(f"exact-{backend}", backend=backend, mesh=mesh, batch_size=2)
    )
    found["other"] = other(Translator(f"run-{backend}", backend=backend, world=world))
    return found


def from_python(translator: Translator) -> list[Any]:
    """Texts and exact scores."""
    outputs = translator(TEXTS, nbest=2)
    return [[(each.text, each.score) for each in (best, *best.others)] for best in outputs]


def other(translator: Translator) -> str:
    """What is said where the last process is given other texts than the first."""
    try:
        translator(TEXTS[: translator.world.processes.index + 1])
        return ""
    except UserError as error:
        return str(error)


def main(folder: Path, backend: str, devices: int, names: list[str]) -> None:
    world = ALONE
    if devices > 1:
        world = frameworks.joined_for_good(backend, Joining(device="cpu", mesh=Mesh(devices)))
        frameworks.joined = lambda name, joining: contextlib.nullcontext(world)
    with contextlib.chdir(folder):
        found = outcomes(backend, world, names or list(CALLS))
    name = f"calls-{backend}-{devices}-{world.processes.index}.json"
    (folder / name).write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
