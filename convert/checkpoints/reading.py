"""Whatever holds weights, opened: a folder, a file, several files, an Orbax folder."""

from dataclasses import replace
from pathlib import Path

from convert.checkpoints.adapters import is_adapter_folder, several_in, what_it_is
from convert.checkpoints.content import Content, left_out
from convert.checkpoints.folders.config_files import (
    CONFIG,
    foreign_settings,
    other_settings,
    settings_in,
)
from convert.checkpoints.folders.file_names import (
    CONTAINER_OF,
    CONTAINERS,
    KEPT_ASIDE,
    MODELS,
    OPTIMIZER,
    OPTIMIZER_PICKLES,
    ORBAX_FOLDER,
)
from convert.checkpoints.folders.odd_places import check_undistributed, only_weights
from convert.checkpoints.folders.split_files import open_split
from convert.checkpoints.folders.steps import (
    check_finished,
    is_step,
    newest_step,
    open_items,
    unfinished,
)
from convert.checkpoints.folders.t5x import is_t5x, steps_in, t5x_settings
from convert.checkpoints.layouts import COUNT, FLAX, TORCH, Layout, has_own_parts
from convert.checkpoints.loops.places import has_marks
from convert.checkpoints.loops.states import find_loop_state
from convert.checkpoints.optimizers.torch_states import OptimizerPart
from convert.checkpoints.records import Record, checked, is_recorded, record_in
from convert.checkpoints.states.copies import begun_with, one_copy
from convert.checkpoints.states.nested import open_nested, open_optimizer
from convert.core.rules import ASIDE
from convert.core.tensors import Joined, Renamed, Subset, Tensors
from convert.families.twinformer import is_flax
from convert.formats.content import some_of
from convert.formats.ctranslate2 import (
    CTRANSLATE2,
    open_ctranslate2,
)
from convert.formats.kinds import container_of
from convert.formats.msgpack import open_msgpack, with_dots
from convert.formats.npz import open_npz
from convert.formats.orbax import AGGREGATE, is_orbax, open_orbax, open_tree
from convert.formats.safetensors import open_safetensors
from convert.formats.shards import INDEX_SUFFIX, NUMBERED, notes_of, shards_in
from convert.formats.torch_file.reader import open_torch_pickle
from training_recipe.runs.integrity import whole_beside
from transformer_spec import UserError

LIKE_ADAM = (
    "the optimizer's state is taken as Adam's, as it has count, mu and nu: adamax, adamaxw, "
    "adabelief, yogi, adopt and scale_by_stddev of optax keep other numbers under these names; "
    "--no-optimizer leaves it out"
)


def open_content(path: Path, key: str | None = None, verify: bool = True) -> Content:
    """Open whatever holds weights, headers only; ``key`` picks a dict of a nested file.

    Where it was written by us, a tensor that is not what was written is a UserError when it is
    read, unless told not to ``verify``.
    """
    check_finished(path)
    split = open_split(path) if key is None else None
    if split is not None:
        files = split.files
        return Content(split.tensors, TORCH, None, "safetensors", split.settings, files=files)
    record = _record_of(path) if verify else None
    try:
        content = _opened(path, key, record)
    except UserError as error:
        if whole := whole_beside(path):
            raise UserError(f"{error}; {whole}", error.faults) from None
        raise
    if record is not None:
        record.check_count(content.count, content.tensors.label)
    content = _with_doubt(replace(content, record=record or content.record), path)
    if is_t5x(content.tensors):
        return _of_t5x(path, content)
    if content.container == CTRANSLATE2:
        return content  # whose settings lie in two files
    settings = foreign_settings(path) or content.settings
    other = other_settings(path) if settings is None else None
    return replace(content, settings=settings, other=other)


def _opened(path: Path, key: str | None, record: Record | None) -> Content:
    if not path.is_dir():
        return _with_files(_open_checked(path, key, record), path)
    if is_orbax(path) and not _models_in(path):
        return replace(_open_orbax(path, key, record), files=[path])
    return _open_folder(path, key, record)


def _with_doubt(content: Content, path: Path) -> Content:
    """Content that says that other optimizers keep Adam's names, where no file of ours is there."""
    doubtful = content.of_loop and content.layout.has_moments(content.tensors)
    if not doubtful or LIKE_ADAM in content.told or is_recorded(path):
        return content
    return replace(content, told=(LIKE_ADAM, *content.told))


def _of_t5x(path: Path, content: Content) -> Content:
    """The same with T5X's own settings, and with the files that it has one for each array."""
    if content.settings is not None:
        return content  # those of the one step that was opened
    container, files = content.container, list(content.files)
    if container == "orbax" and (path / AGGREGATE).is_file():
        container, files = "t5x", [path / AGGREGATE, *sorted(path.glob("*/"))]
    settings = t5x_settings(path, content.tensors)
    step = set(steps_in(content.tensors))  # which the settings have
    tensors = Subset(content.tensors, [name for name in content.tensors if name not in step])
    dropped = {name: why for name, why in content.dropped.items() if name not in step}
    return replace(
        content, tensors=tensors, dropped=dropped, settings=settings, container=container,
        files=files,
    )  # fmt: skip


def _record_of(path: Path) -> Record | None:
    """What a folder of ours says of its tensors, or of those in a file or Orbax folder in it."""
    if path.is_dir() and not is_orbax(path):
        return record_in(path)
    ours = path.name in MODELS or NUMBERED.fullmatch(path.name)
    return record_in(path.parent) if ours else None


def _open_checked(path: Path, key: str | None, record: Record | None) -> Content:
    content = _open_file(path, key)
    return replace(content, tensors=checked(content.tensors, record))


def _open_orbax(path: Path, key: str | None, record: Record | None) -> Content:
    return _of_loop(checked(open_orbax(path), record), key, "orbax")


def _open_step(path: Path, key: str | None) -> Content | None:
    """The newest of several steps, or the items of one; None where a folder has no steps."""
    if is_step(path):
        return replace(_of_loop(open_items(path), key, "orbax"), files=[path])
    step, begun = newest_step(path, key), unfinished(path)
    if step is None and begun:
        raise UserError(f"{path} has no finished step: {some_of(begun)}, not written to the end")
    if step is None:
        return None
    content = open_content(step.path, step.key)
    return replace(content, notes=(step.note, *content.notes), files=[step.path])


def _with_files(content: Content, path: Path) -> Content:
    """Content of a file, or of an index and the files that it lists."""
    listed = shards_in(path) if path.name.endswith(INDEX_SUFFIX) else []
    return replace(content, files=[path, *listed])


def _models_in(path: Path) -> list[str]:
    return [name for name in MODELS if (path / name).exists()]


def _open_folder(path: Path, key: str | None, record: Record | None) -> Content:
    present = _models_in(path)
    if len(present) > 1 and ORBAX_FOLDER in present:  # not a folder that a library left
        found = " and ".join(present)
        raise UserError(f"{path} should hold one of {found}; it has all; name the one to read")
    if not present and is_adapter_folder(path):
        raise UserError(what_it_is(path))
    if not present and (told := several_in(path)):
        raise UserError(told)
    stepped = None if present else _open_step(path, key)
    if stepped is not None:
        return replace(stepped, tensors=checked(stepped.tensors, record))
    if not present:
        only = only_weights(path, MODELS)
        content = _with_files(_open_file(only, key), only)
        note = f"{only.name} is read: the one file of weights, whatever its name"
        return _with_side_files(path, replace(content, notes=(note, *content.notes)), record)
    model = path / present[0]
    opening = _open_orbax if present[0] == ORBAX_FOLDER else _open_checked
    content = _with_files(opening(model, key, record), model)
    if len(present) > 1:
        others = " and ".join(present[1:])
        note = (
            f"{present[0]} is read, not {others} beside it: name a file to read that one, or give "
            "--compare-files"
        )
        files = [path / name for name in present[1:]]
        content = replace(content, notes=(note, *content.notes), others=files)
    return _with_side_files(path, content, record)


def _of_ctranslate2(path: Path, key: str | None) -> Content:
    """A ``model.bin`` with the config.json beside it."""
    if key is not None:
        raise UserError(f"--key picks a part of a file with names, and {path} is CTranslate2's")
    opened = open_ctranslate2(path)
    settings = opened.settings(settings_in(path.parent / CONFIG))
    return Content(opened, TORCH, None, CTRANSLATE2, settings, notes=opened.notes)


def _open_file(path: Path, key: str | None) -> Content:
    check_undistributed([path])
    name = path.name.removesuffix(INDEX_SUFFIX)
    container = CONTAINER_OF.get(Path(name).suffix)
    if name == path.name:
        container = container_of(path) or container
    if container is None:
        raise UserError(
            f"{path} is no weight file: its content is none of {', '.join(CONTAINERS)}, whatever "
            "its name; give a file of torch.save, safetensors, Flax msgpack or npz, or a folder"
        )
    if container == "pt" and name == path.name:
        nested = open_nested(path, key)
        layout = _layout_of(nested.tensors)
        return Content(
            nested.tensors, layout, None, container, nested.settings, nested.optimizer,
            notes=nested.notes, unread=nested.undone,
        )  # fmt: skip
    if container == CTRANSLATE2:
        return _of_ctranslate2(path, key)
    if container == "msgpack":
        index = name != path.name
        opened = open_msgpack(path) if index else open_tree(path)
        return _of_loop(opened, key, container)
    if container == "pt":
        tensors = open_torch_pickle(path, key)
        return Content(tensors, _layout_of(tensors), None, container, notes=notes_of(tensors))
    tensors = open_npz(path) if container == "npz" else open_safetensors(path)
    if container == "safetensors" and _of_flax_library(tensors):
        return _of_loop(tensors, key, container)
    if container == "npz":
        if key is not None:
            raise UserError(f"--key picks a part of a file with names, and {path} is npz")
        return Content(tensors, TORCH, None, container)
    chosen, notes = one_copy(begun_with(tensors, key))
    told = (*notes_of(tensors), *notes)
    return Content(chosen, _layout_of(chosen), None, container, notes=told)


def _of_flax_library(tensors: Tensors) -> bool:
    """Whether names are those of Flax modules, and not our twin's alone."""
    names = _dotted(tensors)
    return is_flax(names) and has_marks(names) and not has_own_parts(names)


def _layout_of(names: Tensors) -> Layout:
    return FLAX if is_flax(names) else TORCH


def _with_side_files(path: Path, content: Content, record: Record | None) -> Content:
    """The optimizer's moments and what was kept aside belong to the folder's tensors."""
    parts, count, optimizer = [content.tensors], content.count, content.optimizer
    unread, files = content.unread, list(content.files)
    if (path / OPTIMIZER).exists():
        parts.append(checked(open_safetensors(path / OPTIMIZER), record))
        count = _count(parts[-1])
        files.append(path / OPTIMIZER)
    else:
        beside = [path / name for name in OPTIMIZER_PICKLES if (path / name).exists()][:1]
        optimizer, unread = _optimizer_in(beside[0]) if beside else (optimizer, unread)
        files += beside if optimizer is not None else []
    if (path / KEPT_ASIDE).exists():
        parts.append(checked(open_safetensors(path / KEPT_ASIDE), record))
        files.append(path / KEPT_ASIDE)
    tensors = Joined(str(path), parts) if len(parts) > 1 else content.tensors
    return replace(
        content, tensors=tensors, count=count, optimizer=optimizer, unread=unread, files=files
    )


def _optimizer_in(path: Path) -> tuple[OptimizerPart | None, str]:
    """The optimizer of a file beside weights, or why there is none."""
    try:
        return open_optimizer(path), ""
    except UserError as error:
        return None, left_out(error)


def _count(tensors: Tensors) -> int:
    text = tensors.metadata.get(COUNT, "")
    if not text.isdecimal():
        raise UserError(f"{tensors.label} has no optimizer step count in its metadata")
    return int(text)


def _of_loop(tensors: Tensors, key: str | None, container: str) -> Content:
    """Weights, or the state of a loop around them, as arrays of nested dicts."""
    if not tensors:
        raise UserError(f"{tensors.label} holds no array")
    state = find_loop_state(_dotted(tensors), key)
    notes = [*notes_of(tensors), *state.notes]
    return Content(
        state.tensors, state.layout, state.count, container, dropped=state.dropped, notes=notes,
        unread=state.unread, of_loop=True, told=state.told, hyperparameters=state.settings,
    )  # fmt: skip


def _dotted(tensors: Tensors) -> Tensors:
    """The same with keys joined with dots where all are joined with slashes."""
    slashed = [name for name in tensors if "/" in name and "." not in name]
    if not slashed or any("." in name or name.startswith(ASIDE) for name in tensors):
        return tensors
    return Renamed(tensors, {with_dots(name): name for name in tensors})
