"""What a naming family of checkpoints is: whose names, which settings, and the way to ours.

Canonical names are the PyTorch twin's. A family gives the rules from its names to the canonical
ones; the way back is those rules reversed, so nothing is written down twice.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.core.rules import ASIDE, Rule, rename
from convert.core.tensors import Announced, Header, Tensors
from transformer_spec import Faults, TransformerConfig, UserError

MEND = "mend it, or give another with --config FILE"


@dataclass(frozen=True)
class OtherSettings:
    """What is said of a file of settings that is not what the weights' library wrote.

    One that ``is_damaged`` may be just that.
    """

    told: str
    is_damaged: bool = False


@dataclass(frozen=True)
class Source:
    """A foreign checkpoint: its tensors, its own settings, and what the user says about it.

    ``settings`` is the content of its config file, or of the Namespace or mapping inside it; None
    where there is none; then ``other`` may be a file that is none. ``flags`` are fields of
    TransformerConfig that the user gave, ``wrapper`` maps our modules to the user's (``--map
    encoder.embedding=src_emb``), and ``ignored`` are settings that no family knows and that by the
    user's word change nothing.
    """

    tensors: Tensors
    settings: Mapping[str, Any] | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    wrapper: Mapping[str, str] = field(default_factory=dict)
    ignored: Collection[str] = ()
    other: OtherSettings | None = None

    def lacks_settings(self, family: str) -> UserError:
        """That a family's settings are needed, what there is in their place, and what to do."""
        told = self.other.told if self.other else "none lies beside it"
        damaged = self.other is not None and self.other.is_damaged
        advice = MEND if damaged else "give it with --config FILE"
        return UserError(
            f"{self.tensors.label} is read as a {family} checkpoint, which needs the config.json "
            f"that its library wrote, and {told}; {advice}"
        )


@dataclass(frozen=True)
class Reading:
    """The config of a source, and what is to be said of settings that only its training knew.

    ``settings`` are kept for the way back in place of the source's own.
    """

    config: TransformerConfig
    notes: list[str] = field(default_factory=list)
    settings: Mapping[str, Any] | None = None


TRAINING_ONLY = "is used in training only, and not here"


class Family(ABC):
    """One naming family. ``containers`` is what it can be written in, the usual one first.

    ``restores_names`` says whether imported weights leave under the names they came with; else
    they leave under those of ``written``. ``pickle`` is what its library calls a file of
    torch.save, ``settings_file`` one of settings, "" where they lie in that. ``wrapped`` families
    lie inside a module of the user's, whose names ``Source.wrapper`` gives. ``length_first`` says
    that inside its library's modules tensors are (length, batch, width). Tensors in ``never_read``
    are in the family's files and change nothing that its code computes: any numbers will do.
    ``padding_gradient`` says whether the padding token's row learns from being looked up when its
    library trains. ``passes_over`` says whether there are settings of which some may be unknown and
    passed over by the user's word.
    """

    name: str
    containers: tuple[str, ...] = ()
    pickle = "model.pt"
    settings_file = "config.json"
    restores_names = True
    wrapped = False
    length_first = False
    never_read: frozenset[str] = frozenset()
    padding_gradient = True
    passes_over = True

    @property
    def library(self) -> str:
        """Whose tokenizer, settings and other files lie beside such weights.

        Two namings of one class of a library have the same.
        """
        return self.name

    @abstractmethod
    def recognizes(self, source: Source) -> bool:
        """Whether names and settings are this family's and no other's; reads no tensor."""

    def contradiction(self, source: Source) -> str | None:
        """What the settings say that makes this family the wrong one, whoever asks for it."""
        return None

    @abstractmethod
    def read_config(self, source: Source) -> Reading:
        """The whole of the settings as a config; every setting it cannot express in one error."""

    @abstractmethod
    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        """From the source's names to every canonical one, and to ``aside/`` what has no place.

        A name of the source that no rule takes, and a rule's name that the source lacks, are found
        by the caller and reported together.
        """

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """The names (and shapes) that this family's own library would save for a config.

        ``wrapper`` is for families that are ``wrapped``; what it cannot mean is a UserError.
        """
        raise NotImplementedError(f"{self.name} is not written")

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The content of the family's config file; ``original`` is what it was imported with.

        Every setting of ours that the family cannot express is named in one UserError.
        """
        raise NotImplementedError(f"{self.name} is not written")

    def settings_text(self, settings: Mapping[str, Any]) -> str:
        """The text of its file of settings."""
        return json.dumps(settings, indent=2) + "\n"

    def adapted(self, config: TransformerConfig) -> tuple[TransformerConfig, list[str]]:
        """A config as this family can hold it where that is nearly the same, and what to say of it.

        Weights are the same under both.
        """
        return config, []

    def torch_content(
        self, settings: Mapping[str, Any], names: Collection[str]
    ) -> dict[str, Any] | None:
        """The tree of its file of torch.save, ``Placed`` where tensors belong.

        None where that is a dict of all tensors, and its settings are a file of their own.
        """
        return None

    def derived(self, name: str, config: TransformerConfig) -> np.ndarray | None:
        """A tensor of its files that follows from the config; None where there is no such."""
        return None

    def number_format(self, settings: Mapping[str, Any], dtype: str) -> dict[str, Any]:
        """What the family's settings say of weights in a number format; most say nothing."""
        return {}


def announced(shapes: Mapping[str, tuple[int, ...]]) -> Source:
    """A source of which only names and shapes matter."""
    float32 = np.dtype(np.float32)
    headers = {name: Header(shape, float32) for name, shape in shapes.items()}
    return Source(Announced("what would be written", headers))


def kept_aside(name: str, reason: str) -> Rule:
    """A tensor without a place in our models: kept beside them, and put back on the way out."""
    return Rule((name,), (ASIDE + name,), reason=f"kept aside: {reason}")


def renamed(pairs: Mapping[str, str]) -> list[Rule]:
    """Plain renames, their name -> our name."""
    return [rename(theirs, ours) for theirs, ours in pairs.items()]


class Settings:
    """Reads a foreign settings mapping once over, and collects every fault of it.

    Each key must be looked at: ``finish`` names those that nobody asked for or declared harmless,
    but for those that the user has ignored.
    """

    def __init__(self, values: Mapping[str, Any], ignored: Collection[str] = ()) -> None:
        self.values = values
        self.ignored = ignored
        self.seen: set[str] = set()
        self.faults = Faults()
        self.notes: list[str] = []

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return self.values.get(key, default)

    def need(self, key: str) -> Any:
        """A key without which there is no config."""
        self.seen.add(key)
        if self.values.get(key) is None:
            self.faults.add(f"{key} is missing")
        return self.values.get(key)

    def only(self, key: str, *allowed: Any, default: Any = None) -> Any:
        """A key that may have some values alone; another one is a fault that names them.

        1 and 0, which some files have for True and False, are given as what is allowed.
        """
        value = self.get(key, default)
        equal = [one for one in allowed if one == value]
        if not equal:
            wanted = " or ".join(map(repr, allowed))
            self.faults.add(f"{key} is {value!r}; only {wanted} can be expressed")
            return value
        return next((one for one in equal if type(one) is type(value)), equal[0])

    def training_only(self, key: str, *harmless: Any) -> None:
        """A key that changes training alone: said in a note unless it has a harmless value."""
        value = self.get(key)
        if value is not None and value not in harmless:
            self.notes.append(f"{key} {value!r} {TRAINING_ONLY}")

    def unread(self, key: str, *usual: Any, who: str) -> None:
        """A key that a library's class never reads: said in a note where it has another value."""
        value = self.get(key)
        if value is not None and value not in usual:
            wanted = f"; it computes as with {usual[0]!r}" if usual else ""
            self.notes.append(f"{key} is {value!r}, which {who} does not read{wanted}")

    def ignore(self, keys: Collection[str]) -> None:
        """Keys that say nothing about the model: paths, versions, decoding habits."""
        self.seen.update(keys)

    def finish(self, what: str) -> None:
        """Raise one UserError with all faults, unknown keys included."""
        unknown = sorted(self.values.keys() - self.seen - set(self.ignored))
        for key in unknown:
            told = f"{key} = {self.values[key]!r} is not known; what it does is not kept"
            self.faults.add(told, "settings are not known")
        for key in self.ignored:
            self._ignored(key)
        flags = " ".join(f"--ignore-setting {key}" for key in unknown)
        advice = f"what changes nothing that the model computes is passed over with {flags}"
        self.faults.raise_if_any(f"{what} cannot be expressed", advice=advice if unknown else "")

    def _ignored(self, key: str) -> None:
        """What the user ignores must be there, and nothing that is known."""
        if key not in self.values:
            self.faults.add(f"--ignore-setting {key}: there is no such setting")
        elif key in self.seen:
            self.faults.add(f"--ignore-setting {key}: it is known, and not passed over")
        else:
            self.notes.append(f"{key} = {self.values[key]!r} is ignored, as --ignore-setting says")
