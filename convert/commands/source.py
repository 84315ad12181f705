"""The flags that say what a source is; those of the config come from the config's fields."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convert.conversion.request import size_in_bytes, sources
from transformer_spec import Faults, UserError
from transformer_spec.config import DECLARATIONS
from transformer_spec.declarations import Declaration


def add_source_flags(result: argparse.ArgumentParser) -> None:
    """The flags that a SourceRequest is made of, but for the source itself."""
    _add_weight_flags(result)
    _add_reading_flags(result)
    _add_config_flags(result)


def _add_weight_flags(result: argparse.ArgumentParser) -> None:
    """Which tensors of the source are its weights."""
    add = result.add_argument_group("weights of the source").add_argument
    add(
        "--key",
        help="where the weights are in a file that holds more: keys joined with dots, through "
        "dicts, lists and objects, or the beginning of flat names",
    )
    add(
        "--map",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="torch-nn: where a module of ours is in yours, as in encoder.embedding=src_emb; of "
        "the source, or of the target where the source is another; repeatable",
    )
    add(
        "--drop",
        action="append",
        default=[],
        metavar="NAME",
        help="leave this tensor of the source out, or all of a pattern such as '*.lora_*'; "
        "repeatable",
    )
    add(
        "--compare-files",
        action="store_true",
        help="where a folder has several weight files, read all, and end unless they hold the "
        "same weights",
    )
    add(
        "--merge-adapter",
        dest="adapter",
        type=Path,
        metavar="FOLDER",
        help="merge this LoRA adapter of PEFT into the weights, in float64",
    )


def _add_reading_flags(result: argparse.ArgumentParser) -> None:
    """How names, settings and an optimizer are read."""
    add = result.add_argument_group("how the source is read").add_argument
    add("--from", dest="family", choices=sources(),
        help="whose names the source has (default: found out from names and settings)")  # fmt: skip
    add(
        "--names",
        metavar="TABLE",
        help="a table of the source's names: a TOML file (python -m convert names SOURCE begins "
        "one), or one that comes with the program",
    )
    add(
        "--ignore-setting",
        dest="ignore_settings",
        action="append",
        default=[],
        metavar="NAME",
        help="pass over this setting of the source, which is not known and changes nothing that "
        "the model computes; it is recorded; repeatable",
    )
    add(
        "--parameter-names",
        type=Path,
        metavar="FILE",
        help="names of the optimizer's parameters, one a line, in its own order",
    )
    add(
        "--no-optimizer",
        dest="optimizer",
        action="store_false",
        help="leave an optimizer's state out, and do not look at it",
    )
    add(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="read a run or a converted folder even where tensors are not what was written",
    )


def _add_config_flags(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group(
        "model config", "for a source without config.json; a config is never guessed from weights"
    )
    told = "these settings in a file: JSON, or gin for T5X"
    group.add_argument("--config", type=Path, metavar="FILE", help=told)
    for declared in DECLARATIONS.values():
        default, text = argparse.SUPPRESS, declared.help
        group.add_argument(declared.flag, default=default, help=text, **_argument(declared))


def _argument(declared: Declaration) -> dict[str, Any]:
    """How argparse reads a field: a flag with its negation, a choice, or a number."""
    if declared.type is bool:
        return {"action": argparse.BooleanOptionalAction}
    if declared.choices:
        return {"choices": declared.choices}
    return {"type": declared.type, "metavar": "N" if declared.type is int else "X"}


def source_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a SourceRequest, from the flags above and ``source``."""
    names = ("source", "family", "key", "config", "drop", "parameter_names", "optimizer", "verify")
    names += ("names", "ignore_settings", "adapter", "compare_files")
    given = {name: getattr(options, name) for name in DECLARATIONS if hasattr(options, name)}
    fields = {name: getattr(options, name) for name in names}
    return fields | {"fields": given, "map": _pairs(options.map)}


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """--map as a mapping; what is no pair, or given twice, is a UserError."""
    faults, wrapper = Faults(), {}
    for pair in texts:
        ours, equals, theirs = pair.partition("=")
        faults.require(bool(ours and equals), f"{pair!r} is not of the form OURS=THEIRS")
        faults.require(ours not in wrapper, f"{ours!r} is given twice")
        wrapper[ours] = theirs
    faults.raise_if_any("--map")
    return wrapper


def size(text: str) -> int:
    """Bytes of a size such as 5GB, for argparse."""
    try:
        return size_in_bytes(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
