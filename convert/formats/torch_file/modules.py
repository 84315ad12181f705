"""Modules that were pickled as a whole: the parameters in them, under the names of a state_dict().

A module keeps them as plain dicts among its attributes; nothing of it is made or run. What a class
of its own does to its ``state_dict()`` is therefore not done.
"""

from collections.abc import Iterator
from typing import Any

from convert.formats.content import MAX_DEPTH, Unread
from transformer_spec import UserError

PARAMETERS, BUFFERS, MODULES = PARTS = ("_parameters", "_buffers", "_modules")
NOT_SAVED = "_non_persistent_buffers_set"
QUANTIZED = ".quantized."  # modules that keep their weights in objects of C++, which stand for them
MOST = 1_000_000  # parts; more of them only where modules hold each other many times


def is_module(value: Any) -> bool:
    """Whether an object is a torch.nn.Module."""
    return isinstance(value, Unread) and all(
        isinstance(value.attributes.get(part), dict) for part in PARTS
    )


def parameters_of(module: Unread) -> dict[str, Any]:
    """Parameters and saved buffers by their names, in the order of ``state_dict()``.

    A module that contains itself, or more parts than any model has, is a UserError.
    """
    found: dict[str, Any] = {}
    for count, (name, value) in enumerate(_parameters(module, [])):
        if count > MOST:
            raise UserError(f"a module of class {module.name} holds more than {MOST} parts")
        if value is not None:
            found[name] = value
    return found


def _parameters(module: Unread, path: list[str]) -> Iterator[tuple[str, Any]]:
    if len(path) > MAX_DEPTH:
        raise UserError(f"a module of class {module.name} is nested more than {MAX_DEPTH} deep")
    inside = module.attributes
    skipped = inside.get(NOT_SAVED)
    skipped = skipped if isinstance(skipped, set) else set()
    yield ".".join(path), None  # counts, also where a module has no parameter
    if QUANTIZED in module.name:
        yield ".".join([*path, "weight"]), Unread(module.name)
    for name, value in (*inside[PARAMETERS].items(), *inside[BUFFERS].items()):
        if name not in skipped:
            yield ".".join([*path, str(name)]), value
    for name, part in inside[MODULES].items():
        if is_module(part):
            yield from _parameters(part, [*path, str(name)])
        elif part is not None:
            yield ".".join([*path, str(name)]), part


def parts_of(module: Unread) -> dict[str, Any]:
    """What ``module.NAME`` would give: modules, parameters, buffers, then other attributes."""
    inside = module.attributes
    own = {str(name): value for name, value in inside.items() if name not in PARTS}
    for part in reversed(PARTS):
        own |= {str(name): value for name, value in inside[part].items()}
    return own
