"""Every tensor of both sides of a conversion: what happened to it, and its bytes' fingerprint."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert.numbers import count_not_finite
from convert.rules import COPY, Rule
from convert.tensors import Header, Tensors, as_bytes, contiguous

LEDGER_VERSION = 1
CANCELLING = ("transposed", "transposed")


class Hashed(Tensors):
    """Other tensors, each fingerprinted when it is read, while its reader already goes on.

    One tensor at a time is being fingerprinted, so that no more than one is kept for it.
    """

    def __init__(self, tensors: Tensors, progress: Callable[[int], object] | None = None) -> None:
        super().__init__(tensors.label, dict(tensors), tensors.metadata)
        self.tensors = tensors
        self.progress = progress
        self.found: dict[str, Future[Fingerprint]] = {}
        self.worker = ThreadPoolExecutor(1)

    def read(self, name: str) -> np.ndarray:
        array = contiguous(self.tensors.read(name))
        if name not in self.found:
            if self.found:
                next(reversed(self.found.values())).result()
            self.found[name] = self.worker.submit(fingerprint, array)
            if self.progress:
                self.progress(self[name].size)
        return array

    def read_rest(self) -> None:
        """Fingerprint what nobody asked for."""
        for name in self:
            if name not in self.found:
                self.read(name)

    def sha256(self, name: str) -> str:
        return self.found[name].result().sha256

    def warnings(self) -> list[str]:
        """What to say of tensors that hold NaN or infinite numbers."""
        counts = {name: found.result().not_finite for name, found in self.found.items()}
        return [
            f"warning: {count:,} of {math.prod(self[name].shape):,} numbers of {name} are NaN or "
            "infinite"
            for name, count in counts.items()
            if count
        ]


class Fingerprint(NamedTuple):
    """What is known of a tensor's bytes: their hash, and how many numbers are not finite."""

    sha256: str
    not_finite: int


def fingerprint(array: np.ndarray) -> Fingerprint:
    return Fingerprint(hashlib.sha256(as_bytes(array).data).hexdigest(), count_not_finite(array))


class Ledger:
    """What becomes of every source tensor, and where every target tensor comes from.

    ``imports`` lead from the source's names to canonical ones, ``exports`` from there to the
    target's; a source tensor in no import is dropped for the reason given in ``dropped``.
    """

    def __init__(
        self, imports: list[Rule], exports: list[Rule], dropped: dict[str, str] | None = None
    ) -> None:
        self.origin = {target: rule for rule in imports for target in rule.targets}
        self.exports = exports
        self.dropped = dropped or {}

    def targets(self) -> dict[str, dict[str, Any]]:
        """Target name -> the source names it comes from, and what was done."""
        entries = {}
        for rule in self.exports:
            entry = {"from": self._sources(rule), "what": self._what(rule)}
            reasons = [r.reason for r in (*self._origins(rule), rule) if r.reason]
            if reasons:
                entry["reason"] = "; ".join(dict.fromkeys(reasons))
            entries |= {target: entry for target in rule.targets}
        return entries

    def sources(self) -> dict[str, dict[str, Any]]:
        """Source name -> the target names it becomes, and what was done."""
        entries: dict[str, dict[str, Any]] = {}
        for target, entry in self.targets().items():
            for source in entry["from"]:
                mine = entries.setdefault(source, {"becomes": [], **entry})
                mine["becomes"].append(target)
        for entry in entries.values():
            del entry["from"]
        gone = {"becomes": [], "what": "dropped"}
        return entries | {name: {**gone, "reason": why} for name, why in self.dropped.items()}

    def counts(self) -> str:
        """How many target tensors were copied, transposed and so on, in words."""
        counter = Counter(entry["what"] for entry in self.targets().values())
        parts = [f"{number} {what}" for what, number in sorted(counter.items())]
        return ", ".join(parts + ([f"{len(self.dropped)} dropped"] if self.dropped else []))

    def _origins(self, rule: Rule) -> list[Rule]:
        return [self.origin.get(name, Rule((), (), COPY)) for name in rule.sources]

    def _sources(self, rule: Rule) -> list[str]:
        return list(dict.fromkeys(name for r in self._origins(rule) for name in r.sources))

    def _what(self, rule: Rule) -> str:
        labels = [r.operation.label for r in (*self._origins(rule)[:1], rule)]
        if tuple(labels) == CANCELLING:
            return COPY.label
        return " then ".join(x for x in labels if x != COPY.label) or COPY.label


def plan_lines(ledger: Ledger, source: Tensors, target: Tensors) -> list[str]:
    """The plan in text: a line per target tensor, then a line per dropped source tensor."""
    lines = []
    for name, entry in ledger.targets().items():
        reason = f" ({entry['reason']})" if "reason" in entry else ""
        origin = " + ".join(entry["from"]) or "nothing"
        lines.append(f"{origin} -> {name}  {target[name]}  {entry['what']}{reason}")
    for name, reason in ledger.dropped.items():
        lines.append(f"{name}  {source[name]}  dropped ({reason})")
    return lines


def write_ledger(
    path: Path, heading: dict[str, Any], ledger: Ledger, source: Hashed, target: Hashed
) -> None:
    """conversion.json: both sides in full, each tensor with shape, type and sha256."""
    content = {"format_version": LEDGER_VERSION, **heading}
    for side, tensors, entries in (
        ("sources", source, ledger.sources()),
        ("targets", target, ledger.targets()),
    ):
        content[side] = {
            name: {**_described(tensors[name]), "sha256": tensors.sha256(name), **entry}
            for name, entry in entries.items()
        }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _described(header: Header) -> dict[str, Any]:
    return {"shape": list(header.shape), "dtype": str(header.dtype), "bytes": header.size}
