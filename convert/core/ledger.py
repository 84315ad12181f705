"""Every tensor of both sides of a conversion: what happened to it, and its bytes' fingerprint."""

import hashlib
import json
import math
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.checked import known_hash
from convert.core.numbers import count_not_finite
from convert.core.operations import COPY
from convert.core.parallel import in_threads
from convert.core.rules import Rule
from convert.core.tensors import Tensors, contiguous, pieces
from transformer_spec.errors import first_of, printable_name

LEDGER_VERSION = 1
CANCELLING = ("transposed", "transposed")


class Hashed(Tensors):
    """Other tensors, each fingerprinted when it is read.

    An array that ``like`` gave out and that arrives here as it was has its fingerprint already.
    Several threads may read at once, if not the same name.
    """

    def __init__(
        self,
        tensors: Tensors,
        progress: Callable[[int], object] | None = None,
        like: "Hashed | None" = None,
    ) -> None:
        super().__init__(tensors.label, dict(tensors), tensors.metadata)
        self.tensors = tensors
        self.progress = progress
        self.like = like
        self.found: dict[str, Fingerprint] = {}
        self.given = threading.local()
        self.lock = threading.Lock()

    def prepare(self, name: str) -> None:
        self.tensors.prepare(name)

    def read(self, name: str) -> np.ndarray:
        array = contiguous(self.tensors.read(name))
        if name not in self.found:
            self.found[name] = found = Fingerprint.of(array)
            self.given.latest = weakref.ref(array), found
            if self.progress:
                with self.lock:
                    self.progress(array.nbytes)
        return array

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """The bytes of one array, each piece fingerprinted before it is given out."""
        array = self.tensors.read_announced(name)
        known = self.like.fingerprint_of(array) if self.like else None
        self.found[name] = known or Fingerprint()
        for piece in pieces(array):
            if known is None:
                self.found[name].add(piece)
            yield piece

    def fingerprint_of(self, array: np.ndarray) -> "Fingerprint | None":
        """Of the very array that this thread was given last."""
        latest, found = getattr(self.given, "latest", (lambda: None, None))
        return found if latest() is array else None

    def read_rest(self) -> None:
        """Fingerprint what nobody asked for."""
        sizes = {name: header.size for name, header in self.items() if name not in self.found}
        in_threads(sizes, self.read)

    def warnings(self) -> list[str]:
        """What to say of tensors that hold NaN or infinite numbers."""
        lines = [
            f"warning: {count:,} of {math.prod(self[name].shape):,} numbers of "
            f"{printable_name(name)} are NaN or infinite"
            for name in self
            if (count := self.found[name].not_finite)
        ]
        return first_of(lines, "tensors with such numbers")


class Fingerprint:
    """What is known of a tensor's bytes: their hash, and how many numbers are not finite."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.not_finite = 0

    @classmethod
    def of(cls, array: np.ndarray) -> "Fingerprint":
        """That of an array, which is not hashed again where it has just been checked."""
        result, known = cls(), known_hash(array)
        for piece in pieces(array):
            if known is None:
                result.add(piece)
            result.not_finite += count_not_finite(piece.view(array.dtype))
        if known is not None:
            result.hash = known
        return result

    def add(self, piece: np.ndarray) -> None:
        self.hash.update(piece.data)

    @property
    def sha256(self) -> str:
        return self.hash.hexdigest()


class Ledger:
    """What becomes of every source tensor, and where every target tensor comes from.

    ``imports`` lead from the source's names to canonical ones, ``exports`` from there to the
    target's; a source tensor in no import is dropped for the reason given in ``dropped``. ``casts``
    says what then becomes of a target's numbers, as in "rounded to bfloat16".
    """

    def __init__(
        self,
        imports: list[Rule],
        exports: list[Rule],
        dropped: dict[str, str] | None = None,
        casts: Mapping[str, str] | None = None,
    ) -> None:
        self.origin = {target: rule for rule in imports for target in rule.targets}
        self.exports = exports
        self.dropped = dropped or {}
        self.casts = casts or {}

    def targets(self) -> dict[str, dict[str, Any]]:
        """Target name -> the source names it comes from, and what was done."""
        entries = {}
        for rule in self.exports:
            entry = {"from": self._sources(rule), "what": self._what(rule)}
            reasons = [r.reason for r in (*self._origins(rule), rule) if r.reason]
            if reasons:
                entry["reason"] = "; ".join(dict.fromkeys(reasons))
            for target in rule.targets:
                steps = [entry["what"]] * (entry["what"] != COPY.label or target not in self.casts)
                steps += [self.casts[target]] if target in self.casts else []
                entries[target] = entry | {"what": " then ".join(steps)}
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

    def counts(self) -> dict[str, int]:
        """How many target tensors were copied, transposed and so on, and how many are dropped."""
        counter = Counter(entry["what"] for entry in self.targets().values())
        dropped = {"dropped": len(self.dropped)} if self.dropped else {}
        return dict(sorted(counter.items())) | dropped

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
        origin = " + ".join(map(printable_name, entry["from"])) or "nothing"
        lines.append(f"{origin} -> {printable_name(name)}  {target[name]}  {entry['what']}{reason}")
    for name, reason in ledger.dropped.items():
        lines.append(f"{printable_name(name)}  {source[name]}  dropped ({reason})")
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
            name: {**tensors[name].to_json(), "sha256": tensors.found[name].sha256, **entry}
            for name, entry in entries.items()
        }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
