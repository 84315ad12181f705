"""What is asked of the converter: which checkpoint, and what is to become of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from convert.checkpoints.folders.config_files import is_foreign, unmarked
from convert.conversion.places import add_source_faults, check_destination, is_path
from convert.conversion.target import NAMES, containers, targets
from convert.exports.ctranslate2_model import QUANTIZATIONS
from convert.families.base import OtherSettings
from convert.families.registry import FAMILIES, OURS, family_of_table
from convert.families.t5x.settings import GIN, kept_of
from convert.formats.gin import GIN_SUFFIX, read_gin
from transformer_spec import Faults, TransformerConfig, UserError
from transformer_spec.json_text import json_fault, read_json_file
from transformer_spec.paths import as_path, at_home, path_fault
from transformer_spec.strict import is_whole

UNITS = "kB, MB, GB and TB (1000s), KiB, MiB, GiB and TiB (1024s)"
DTYPES = ("float16", "bfloat16", "float32", "float64")


def sources() -> tuple[str, ...]:
    """Whose names can be read."""
    return (OURS, *FAMILIES)


@dataclass(frozen=True)
class SourceRequest:
    """A checkpoint, and what its reader has to be told of it; what is not given is found out.

    ``source`` is a path, or where there is none a repository of the Hub, OWNER/NAME[@REVISION].
    ``family`` says whose names it has, ``names`` is a table of them, a file or one that comes with
    the program (convert/naming), ``key`` which dict of a nested file holds the weights.
    ``config`` is a file of settings, ours or another library's, T5X's in gin; ``fields`` are fields
    of a TransformerConfig, which win over the file's. ``map`` (ours -> theirs) says where modules
    are in a module of the user's, ``drop`` which tensors are left out, and the file
    ``parameter_names`` in which order a torch optimizer got its parameters; without ``optimizer``
    none is looked at.
    ``adapter`` is a folder of PEFT's whose LoRA adapter is merged into the weights.
    ``compare_files`` reads every weight file of a folder, which must hold the same weights.
    ``ignore_settings`` names settings of the source that no family knows and that change nothing.
    With ``verify``, tensors of our own folders that are not what was written there are an error.
    """

    source: Path
    _: KW_ONLY
    family: str | None = None
    names: str | None = None
    key: str | None = None
    config: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    map: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    parameter_names: Path | None = None
    optimizer: bool = True
    adapter: Path | None = None
    ignore_settings: Sequence[str] = ()
    verify: bool = True
    compare_files: bool = False

    def __post_init__(self) -> None:
        faults = Faults()
        self._find_faults(faults)
        if faults.messages:
            self._find_faults_of_places(faults)
        faults.raise_if_any("this cannot be converted")

    def _find_faults(self, faults: Faults) -> None:
        self._as_paths(faults, "source", "config", "parameter_names", "adapter")
        _choose(faults, "family", self.family, sources())
        if self.names is not None:
            faults.require(self.family is None, "family and names are given; a table is a family")
            self._as_table(faults)
        for name in ("fields", "map"):
            _require(faults, name, getattr(self, name), Mapping, "a mapping")
        for name in ("optimizer", "verify", "compare_files"):
            _require(faults, name, getattr(self, name), bool, "True or False")
        for name in ("drop", "ignore_settings"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
            _require(faults, name, getattr(self, name), Sequence, "a list of names")

    def _find_faults_of_places(self, faults: Faults) -> None:
        """What else is wrong: without other faults, whoever reads and writes there tells it."""
        add_source_faults(self.source, self.key, faults)

    def _as_paths(self, faults: Faults, *names: str) -> None:
        """Paths given as text become paths; a source and a destination must be there."""
        for name in names:
            value, needed = getattr(self, name), name in ("source", "destination")
            if value is None and not needed:
                continue
            try:
                object.__setattr__(self, name, as_path(value, name))
            except UserError as error:
                faults.take(error)

    def _as_table(self, faults: Faults) -> None:
        """A table of names becomes text: the path of its file, or what it is called."""
        fault = path_fault(self.names)
        if fault is not None:
            faults.add(f"names {fault}")
            return
        object.__setattr__(self, "names", at_home(str(self.names)))
        _find_table(faults, str(self.names))

    def given_fields(self) -> dict[str, Any]:
        """The fields of our config that the file and the fields give, the fields winning."""
        content = self._content()
        if self.config and "model" in content:
            content = TransformerConfig.load(self.config).to_dict()
        theirs = is_foreign(content) or GIN in content
        return ({} if theirs else content) | dict(self.fields)

    def given_settings(self) -> dict[str, Any] | None:
        """The content of the config file where it is another library's."""
        content = self._content()
        return content if is_foreign(content) or GIN in content else None

    def other_settings(self) -> OtherSettings | None:
        """A config file that is not another library's; None where it is one, or none is given."""
        if self.config is None or self.given_settings() is not None:
            return None
        return unmarked(self.config, self._content())

    def _content(self) -> dict[str, Any]:
        """What the config file holds; of a gin file what it binds, under one key."""
        if self.config is not None and self.config.suffix == GIN_SUFFIX:
            return {GIN: kept_of(read_gin(self.config))}
        return _read_json(self.config) if self.config else {}

    def our_config(self, home: Path | None) -> TransformerConfig:
        """The config of the source's folder, or of file and fields; never both."""
        given = self.given_fields()
        if home is not None:
            if given:
                raise UserError(
                    f"{home / 'config.json'} says what the model is; leave out --config and the "
                    f"config flags ({', '.join(given)})"
                )
            return TransformerConfig.load(home / "config.json")
        if not given:
            raise UserError(
                f"{self.source} comes without config.json; say what the model is with --config "
                "FILE.json or flags such as --hidden-dim 512 (see --help)"
            )
        return TransformerConfig.from_dict(given)


@dataclass(frozen=True, kw_only=True)
class ConversionRequest(SourceRequest):
    """A checkpoint and the new folder that it is to be converted into, ``to`` whose names.

    ``container`` is the file format (None: the family's usual one), ``dtype`` the number format of
    weights (None: as they are), ``shard_size`` the most bytes of one safetensors file, also as text
    such as "5GB", and ``quantization`` is CTranslate2's. A dry run reads headers, writes nothing.
    All other fields are those of ``SourceRequest``.
    """

    destination: Path = field(kw_only=False)
    to: str
    container: str | None = None
    dtype: str | None = None
    shard_size: int | str | None = None
    quantization: str | None = None
    dry_run: bool = False

    def _find_faults(self, faults: Faults) -> None:
        super()._find_faults(faults)
        self._as_paths(faults, "destination")
        if self.shard_size is not None:
            self._read_shard_size(faults)
        _require(faults, "dry_run", self.dry_run, bool, "True or False")
        faults.require(self.to is not None, f"to is None; choose one of {', '.join(targets())}")
        if isinstance(self.to, str) and self.to.startswith(NAMES):
            _find_table(faults, self.to.removeprefix(NAMES))
        else:
            _choose(faults, "to", self.to, targets())
        _choose(faults, "container", self.container, containers())
        _choose(faults, "dtype", self.dtype, DTYPES)
        _choose(faults, "quantization", self.quantization, QUANTIZATIONS)

    def _find_faults_of_places(self, faults: Faults) -> None:
        super()._find_faults_of_places(faults)
        if is_path(self.source) and is_path(self.destination):
            try:
                check_destination(self.source, self.destination)
            except UserError as error:
                faults.take(error)

    def _read_shard_size(self, faults: Faults) -> None:
        try:
            size = self.shard_size
            size = size_in_bytes(size) if isinstance(size, str) else size
            object.__setattr__(self, "shard_size", size)
        except UserError as error:
            faults.add(f"shard_size: {error}")
            return
        whole = is_whole(size, 1)
        faults.require(whole, f"shard_size is {size!r}; give bytes, or a size such as '5GB'")


def _require(faults: Faults, name: str, value: object, kind: type, what: str) -> None:
    faults.require(isinstance(value, kind), f"{name} is {value!r}; give {what}")


def _find_table(faults: Faults, given: str) -> None:
    """A fault for a table of names that is none."""
    try:
        family_of_table(given)
    except UserError as error:
        faults.add(str(error))


def _choose(faults: Faults, name: str, value: str | None, allowed: Sequence[str]) -> None:
    known = value is None or value in allowed
    faults.require(known, f"{name} is {value!r}; choose one of {', '.join(allowed)}")


def size_in_bytes(text: str) -> int:
    """Bytes of a size such as 5GB, 300MiB or 1000000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B?", text)
    if not match or not float(match[1]):
        raise UserError(f"{text!r} is no size such as 5GB, 300MiB or 1000000; units are {UNITS}")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json_file(path)
    except (OSError, ValueError) as error:
        raise UserError(json_fault(path, error)) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object of config fields")
    return content
