"""Tensors seen through rules: faults and headers at once, arrays one at a time."""

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from convert.core.operations import Arrays, RuleError
from convert.core.rules import ASIDE, Rule
from convert.core.tensors import Header, Tensors
from transformer_spec import Faults, UserError

# What many faults of a kind are called.
MISSING, EXTRA = "are missing", "are no weights of this config"
SHAPE, DTYPE = "have the wrong shape", "have the wrong dtype"
ExpectedShapes = Mapping[str, tuple[int, ...]]


class Converted(Tensors):
    """The targets of rules, computed from source tensors when they are read."""

    def __init__(self, source: Tensors, rules: list[Rule]) -> None:
        self.source = source
        self.rule_of = {target: rule for rule in rules for target in rule.targets}
        headers: dict[str, Header] = {}
        for rule in rules:
            headers |= _target_headers(rule, source)
        super().__init__(source.label, headers, source.metadata)
        self.waiting: dict[str, np.ndarray] = {}
        self.lock_of: dict[tuple[str, ...], threading.Lock] = {
            rule.targets: threading.Lock() for rule in rules if len(rule.targets) > 1
        }

    def read(self, name: str) -> np.ndarray:
        """A rule with several targets runs once: the others wait until they are read."""
        rule = self.rule_of[name]
        with self.lock_of.get(rule.targets, nullcontext()):
            if name not in self.waiting:
                self.waiting |= zip(rule.targets, self._run(rule), strict=True)
            return self.waiting.pop(name)

    def _run(self, rule: Rule) -> Arrays:
        arrays = [self.source.read(source) for source in rule.sources]
        try:
            return rule.operation.forward(*arrays)
        except RuleError as error:
            raise UserError(f"{', '.join(rule.sources)}: {error}") from error


def _target_headers(rule: Rule, source: Tensors) -> dict[str, Header]:
    shapes = rule.operation.forward_shapes(*(source[name].shape for name in rule.sources))
    if rule.sources:
        dtype = source[rule.sources[0]].dtype
    else:
        dtype = rule.operation.forward()[0].dtype
    targets = zip(rule.targets, shapes, strict=True)
    return {name: Header(shape, dtype) for name, shape in targets}


def check_source(
    given: Mapping[str, Any],
    rules: list[Rule],
    expected: ExpectedShapes,
    faults: Faults,
    dtype: np.dtype | None = None,
) -> None:
    """Add a fault for each given array (anything with shape and dtype) that does not fit the rules.

    ``expected`` holds the shapes of the rules' targets; a target that is not in it may have any.
    """
    used: set[str] = set()
    for rule in rules:
        aside = all(target.startswith(ASIDE) for target in rule.targets)
        for name, shape in zip(rule.sources, _source_shapes(rule, expected), strict=True):
            if name in used:
                faults.add(f"{name!r} has two rules")
            used.add(name)
            if aside and name in given:
                continue
            _check_one(name, given.get(name), shape, dtype, faults)
    for name in given:
        if name not in used:
            faults.add(f"extra {name!r}: {describe(given[name])}; no weight of this config", EXTRA)


def _source_shapes(rule: Rule, expected: ExpectedShapes) -> tuple[Any, ...]:
    if not all(target in expected for target in rule.targets):
        return (None,) * len(rule.sources)
    return rule.operation.inverse_shapes(*(tuple(expected[target]) for target in rule.targets))


def _check_one(name: str, given: Any, shape: Any, dtype: np.dtype | None, faults: Faults) -> None:
    wanted = f"{dtype or 'float'} {list(shape) if shape is not None else ''}"
    if given is None:
        faults.add(f"missing {name!r}: expected {wanted}", MISSING)
        return
    if shape is not None and tuple(given.shape) != tuple(shape):
        faults.add(f"wrong shape of {name!r}: {describe(given)}, expected {wanted}", SHAPE)
    if not (is_float(given.dtype) if dtype is None else given.dtype == dtype):
        faults.add(f"wrong dtype of {name!r}: {describe(given)}, expected {wanted}", DTYPE)


def is_float(dtype: np.dtype) -> bool:
    """float16, float32, float64 and bfloat16, which NumPy itself does not count as floating."""
    return dtype.name in ("float16", "bfloat16", "float32", "float64")


def describe(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"
