"""Code of the user's own, run only where it is named: what it does wrong is told in one line."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import jax
import numpy as np
from torch import nn

from transformer_spec import UserError

SECONDS = ContextVar("seconds that code of the user's may take", default=300.0)
# Weights are compared with those of a second call up to so many numbers.
CALLED_TWICE = 30_000_000
SHOWN = 200


class _TooLong(BaseException):
    """Code of the user's that catches every Exception does not catch this."""


@dataclass(frozen=True)
class Made:
    """What a function of the user's returned: a model, its weights where they stand apart."""

    model: Any
    params: Any = None
    fields: Any = None


def made_by(given: str, rest: str) -> Made:
    """Call FUNCTION of FILE.py, given as module:FILE.py:FUNCTION."""
    path, _, name = rest.rpartition(":")
    if not path:
        raise UserError(f"{given} names no function; give module:FILE.py:FUNCTION")
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; given as module:FILE.py:FUNCTION in {given}")
    with _neighbours_found(Path(path)):
        with guarded(given, path, "importing it"):
            module = _imported(Path(path))
        make = getattr(module, name, None)
        if not callable(make):
            raise UserError(f"{path} has no function {name!r}; given as module:FILE.py:FUNCTION")
        _check_arguments(given, name, make)
        with guarded(given, path, f"{name}()"):
            made = make()
        result = _taken_apart(given, made)
        with guarded(given, path, f"{name}()"):
            _check_again(given, name, result.model, make)
    return result


def _taken_apart(given: str, made: Any) -> Made:
    """A model, (model, config), (function, params) or (function, params, config)."""
    if isinstance(made, tuple) and len(made) == 3:
        return Made(*made)
    if isinstance(made, tuple) and len(made) == 2:
        return Made(made[0], made[1]) if _is_tree(made[1]) else Made(made[0], fields=made[1])
    if callable(made):
        return Made(made)
    raise UserError(
        f"{given} returned {type(made).__name__}; it should return a model, (model, config) or "
        "(function of (params, source, target), params)"
    )


def _is_tree(value: Any) -> bool:
    """Whether a value holds arrays, and is no config."""
    return isinstance(value, Mapping) and any(
        getattr(leaf, "ndim", 0) > 0 for leaf in jax.tree_util.tree_leaves(value)
    )


def _check_arguments(given: str, name: str, make: Callable[..., Any]) -> None:
    try:
        inspect.signature(make).bind()
    except TypeError:
        shown = inspect.signature(make)
        raise UserError(
            f"{given}: {name}{shown} needs arguments; name a function of none"
        ) from None
    except ValueError:  # built-in functions have no signature
        return


def _check_again(given: str, name: str, model: Any, make: Callable[..., Any]) -> None:
    """A second call must make the same weights: those of a checkpoint, not new ones."""
    if not isinstance(model, nn.Module) or _count(model) > CALLED_TWICE:
        return
    again = make()
    again = again[0] if isinstance(again, tuple) else again
    if isinstance(again, nn.Module) and fingerprint(again) != fingerprint(model):
        raise UserError(
            f"{given}: {name}() makes other weights each time: it trains, or draws them without a "
            "seed; let it load saved ones"
        )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def fingerprint(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Numbers that change where a parameter does."""
    found = dict[str, tuple[float, float]]()
    for name, parameter in model.named_parameters():
        wide = parameter.detach().double()
        found[name] = float(wide.sum()), float(wide.square().sum())
    return found


@contextlib.contextmanager
def guarded(given: str, path: str, doing: str) -> Iterator[None]:
    """What code of the user's raises, its exit and its time limit as a UserError of one line.

    What it prints is told on the error stream, and spoils no output.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), _limited():
            yield
    except _TooLong:
        seconds = f"{SECONDS.get():g} s"
        raise UserError(f"{given}: {doing} took longer than {seconds} (--module-timeout)") from None
    except SystemExit as error:
        raise UserError(f"{given}: {doing} ended the program, sys.exit({error.code!r})") from None
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{given} is no Python: line {error.lineno}: {error.msg}") from None
    except Exception as error:  # whatever the user's code meets
        raise UserError(f"{given}: {doing} raised {_in_words(error, path)}") from error
    finally:
        _tell(given, doing, printed.getvalue())


def _in_words(error: Exception, path: str) -> str:
    """An error in one line, and where in the user's file it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename and Path(f.filename) == Path(path).resolve()]
    where = f", line {lines[-1]}" if lines else ""
    text = " ".join(str(error).split())
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return f"{type(error).__name__}{': ' if shown else ''}{shown}{where}"


_told = set[tuple[str, str]]()


def _tell(given: str, doing: str, printed: str) -> None:
    """What was printed, once."""
    lines = printed.splitlines()
    if lines and (given, printed) not in _told:
        _told.add((given, printed))
        count = "a line" if len(lines) == 1 else f"{len(lines)} lines"
        print(f"{given}: {doing} printed {count}: {lines[0][:SHOWN]}", file=sys.stderr)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """The time limit; threads other than the first have none, and what they run ends with them."""
    seconds = SECONDS.get()
    usable = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if not usable:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            rest = max(left - (time.monotonic() - began), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, rest, interval)


@contextlib.contextmanager
def _neighbours_found(path: Path) -> Iterator[None]:
    """What lies beside a file can be imported by it and by its functions."""
    sys.path.insert(0, str(path.parent))
    try:
        yield
    finally:
        if str(path.parent) in sys.path:
            sys.path.remove(str(path.parent))


def _imported(path: Path) -> ModuleType:
    """The module of a file, under a name that is no other module's; dataclasses look it up."""
    name = f"given to parity: {path.resolve()}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; its name ends with .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_twice(given: str, one: Any, other: Any) -> None:
    """Two calls with the same ids must give the same logits."""
    if np.shape(one) == np.shape(other) and not np.array_equal(one, other, equal_nan=True):
        raise UserError(
            f"{given} returned other logits when called again with the same ids: something random "
            "is left on that eval() does not switch off"
        )
