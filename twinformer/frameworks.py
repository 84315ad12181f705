"""The two frameworks, each imported only when it is asked for."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from training_recipe.backend import Backend, Checkpoint, MakeBackend
from training_recipe.distributed.joining import Joining
from training_recipe.distributed.processes import ALONE, World
from training_recipe.files.json_files import read_json
from training_recipe.options.extras import FRAMEWORKS, other_framework
from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig, UserError

TWINS = {"torch": "torch_transformer", "jax": "flax_transformer"}
OF_NAMES = {"torch": "torch", "flax": "jax"}  # whose names weights have -> the framework
SHOWN = {"torch": "PyTorch", "jax": "JAX"}
JOINED: dict[str, World] = {}
OURS = ("twinformer", "parity", *TWINS.values(), "convert", "training_recipe", "transformer_spec")


def twin(name: str, part: str = "") -> ModuleType:
    """The package of a framework, ``torch`` or ``jax``, or a module of it.

    Raises UserError where there is no such framework or it is not installed.
    """
    if name not in TWINS:
        raise UserError(f"there is no backend {name!r}; choose {' or '.join(TWINS)}")
    try:
        return importlib.import_module(".".join(filter(None, (TWINS[name], part))))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OURS:
            raise
        raise UserError(
            f"the backend {name} needs {_absent(name, missing)} not installed: "
            f"pip install 'twinformer[{name}]'{other_framework(name)}"
        ) from None


def _absent(name: str, first: str) -> str:
    """The packages that a framework lacks, the one that was found first among them."""
    names = [first]
    for package in FRAMEWORKS[name]:
        try:
            found = importlib.util.find_spec(package)
        except ImportError:
            found = None
        names += [package] if found is None else []
    names = list(dict.fromkeys(names))
    return f"{', '.join(names)}, which {'is' if len(names) == 1 else 'are'}"


def training_backend(name: str, world: World = ALONE) -> MakeBackend:
    """What makes a framework's training backend, in this process, which is prepared for it.

    It computes on all devices of the world, together with the backends of its other processes.
    """
    make_backend = twin(name, "step").make_backend
    where = () if world is ALONE else (world,)

    def make(config: TransformerConfig, settings: TrainingSettings, state: Checkpoint) -> Backend:
        prepare_process(name, settings.device)
        return make_backend(config, settings, state, *where)

    return make


@contextlib.contextmanager
def joined(name: str, joining: Joining) -> Iterator[World]:
    """All processes that train together and the devices of all, by a framework's own means.

    The others are left at the end, and after a UserError.
    """
    if not joining.is_asked(os.environ):
        yield ALONE
        return
    world = twin(name, "processes").join(joining)
    try:
        yield world
    except UserError:
        world.processes.leave()
        raise
    world.processes.leave()


def joined_for_good(name: str, joining: Joining) -> World:
    """The same until this process ends; where it has joined others before, it stays with them."""
    before = JOINED.get(name)
    if before is not None:
        mesh = joining.mesh or before.mesh
        return World(before.processes, mesh.on(before.mesh.devices))
    world = twin(name, "processes").join(joining)
    if world.processes.count > 1:
        JOINED[name] = world
        atexit.register(world.processes.leave)
    return world


def prepare_process(name: str, device: str) -> None:
    """Set what is global in a process, once: for commands and training, never for a model.

    What a framework frees is kept, and what JAX compiles is, for the next process.
    """
    twin(name, "process").prepare_process(device)


def choose(wanted: str | None, home: Path | None = None) -> tuple[str, list[str]]:
    """The framework to use, and what there is to say about the choice.

    It is the ``wanted`` one, else that of the model in the folder ``home``, else one that is
    installed. Raises UserError where none is.
    """
    if wanted is not None:
        twin(wanted)
        return wanted, []
    own = framework_of(home)
    for name in sorted(TWINS, key=lambda name: name != own):
        with contextlib.suppress(UserError):
            twin(name)
            if own in (None, name):
                return name, []
            return name, [f"{own}, whose format the model has, is not installed; using {name}"]
    names = " or ".join(f"pip install 'twinformer[{name}]'" for name in TWINS)
    raise UserError(f"neither backend is installed: {names}")


def home_of(path: Path) -> Path | None:
    """The folder with the config of a model of ours; None where there is none, or it is got."""
    from convert.checkpoints.folders.location import locate

    return locate(path).home if path.exists() else None


def framework_of(home: Path | None) -> str | None:
    """The framework of a folder of ours, if it is one's: what it was converted to, what trained it,
    or whose names its weights have.
    """
    if home is None:
        return None
    from convert.checkpoints.reading import open_content
    from convert.checkpoints.records import LEDGER

    said: Any = None
    with contextlib.suppress(UserError):  # what is wrong with it is for those who verify
        to = _json_of(home / LEDGER).get("to")
        said = to.get("names") if isinstance(to, dict) else None
    settings = _json_of(home / "settings.json")
    if said not in OF_NAMES and settings.get("backend") in TWINS:
        return settings["backend"]
    if said not in OF_NAMES:
        with contextlib.suppress(UserError):
            said = open_content(home, verify=False).layout.twin
    return OF_NAMES.get(said)


def _json_of(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
