"""What A and B may be on the command line, and the sides that they become."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace

import numpy as np

from convert.checkpoints.layouts import BESIDE
from convert.commands.inspection import source_request
from convert.conversion.conversion import check_unread
from convert.conversion.sources.source import Import, read_import
from convert.core.pipeline import Converted
from parity.forward.used_settings import uses
from parity.sides.given import HUGGING_FACE, MODULE, path_and_flags, words
from parity.sides.side import Side
from parity.sides.twins import TWINS
from transformer_spec import DROPOUTS, Faults, TransformerConfig, UserError


def open_sides(
    a: str, b: str, frameworks: tuple[str | None, str | None], verify: bool = True
) -> tuple[Side, Side]:
    """Both sides, with whatever is wrong with either said at once.

    Code of the user's comes last: a model that it gives no config for has that of the other side.
    """
    found, failed, config = dict[str, Side](), dict[str, str](), None
    asked = {"A": (a, frameworks[0]), "B": (b, frameworks[1])}
    for label, (given, framework) in sorted(asked.items(), key=lambda one: _is_code(one[1][0])):
        try:
            found[label] = open_side(given, framework, verify, config)
            config = found[label].config
        except UserError as error:
            failed[label] = str(error)
    faults = Faults()
    for label, message in sorted(failed.items()):
        faults.add(f"{label}: {message}")
    faults.raise_if_any("cannot compare")
    return found["A"], found["B"]


def _is_code(given: str) -> bool:
    return given.startswith(MODULE)


def open_side(
    given: str,
    framework: str | None = None,
    verify: bool = True,
    config: TransformerConfig | None = None,
) -> Side:
    """A checkpoint as ``convert`` reads it, ``hf:FOLDER`` or ``module:FILE.py:FUNCTION``.

    Unless told not to ``verify``, weights that are not what was written are a UserError when they
    are read. ``config`` is for a function that returns a model alone.
    """
    if given.startswith((HUGGING_FACE, MODULE)):
        from parity.sides.library import open_library_side

        return open_library_side(given, config)
    return checkpoint_side(given, framework, verify)


def checkpoint_side(given: str, framework: str | None, verify: bool) -> Side:
    """A run, a folder or a file, with the flags of ``python -m convert inspect`` after it.

    Stored tables that are not those which its config stands for are a UserError.
    """
    path, flags = path_and_flags(given)
    request = source_request([path, *words(flags)])
    verify = verify and request.verify
    found = read_import(replace(request, optimizer=False, verify=verify))
    check_unread(found.content.tensors, found.rules)  # others are compared when they are read
    framework = framework or ("jax" if found.content.layout.twin == "flax" else "torch")
    what = f"{found.located.kind}, {found.names} names, run by the {framework} twin"
    return TWINS[framework](given, what, framework, found.config, Stored(found))


class Stored(Mapping[str, np.ndarray]):
    """Canonical name -> array of a checkpoint, read from its file whenever it is asked for."""

    def __init__(self, found: Import) -> None:
        self.canonical = Converted(found.content.tensors, found.rules)
        self.names = [name for name in self.canonical if not name.startswith(BESIDE)]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.canonical.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.canonical  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def nbytes(self) -> int:
        return sum(self.canonical[name].size for name in self.names)


def check_comparable(a: Side, b: Side) -> None:
    """Different shapes or vocabularies are one UserError with every field, before any compute."""
    faults = Faults()
    for name in SHAPES:
        one, other = getattr(a.config, name), getattr(b.config, name)
        faults.require(one == other, f"{name}: A {one!r}, B {other!r}")
    faults.raise_if_any("A and B are different models")


def different_settings(
    a: TransformerConfig, b: TransformerConfig, judged: Collection[str] = ()
) -> dict[str, tuple]:
    """Fields that change what is computed, and those ``judged`` besides: field -> (A, B)."""
    return {
        name: values
        for name, values in different_fields(a, b).items()
        if name not in HARMLESS or name in judged
    }


def settings_not_judged(
    a: TransformerConfig, b: TransformerConfig, judged: Collection[str] = ()
) -> dict[str, tuple]:
    """Fields that differ and change nothing that is compared, but for those ``judged``."""
    found = different_fields(a, b)
    never_shown = {*NOT_JUDGED, *(n for n in POSITIONS if set(found.get(n, ())) == TRAINED_OR_NOT)}
    if all(config.max_source_length == config.max_length for config in (a, b)):
        found.pop("max_source_length", None)  # it is the other one's default
    return {n: values for n, values in found.items() if n in never_shown and n not in judged}


def different_fields(a: TransformerConfig, b: TransformerConfig) -> dict[str, tuple]:
    """Every field of which A and B have other values: field -> (A, B).

    But for sizes, and for what neither model uses.
    """
    one, other = asdict(a), asdict(b)
    used = [name for name in one if name not in SHAPES and (uses(a, name) or uses(b, name))]
    fields = [name for name in used if one[name] != other[name]]
    return {name: (one[name], other[name]) for name in fields}


SHAPES = (
    "source_vocab_size",
    "feature_dim",
    "target_vocab_size",
    "hidden_dim",
    "inner_dim",
    "num_encoder_layers",
    "num_decoder_layers",
)
# These matter to training or to the choice of tokens; the same tokens give the same logits.
HARMLESS = (
    "max_length",
    "max_source_length",
    *DROPOUTS,
    "unk_id",
    "bos_id",
    "eos_id",
    "output_bias",
    "tied_embeddings",
)
# So do these, which stand among the settings that differ.
NOT_JUDGED = (*HARMLESS, "decoder_start_id", "dropout_after_norm")
# A table that one model trains and the other keeps as it is has the same numbers in both.
POSITIONS = ("encoder_positions", "decoder_positions")
TRAINED_OR_NOT = {"learned", "frozen"}
