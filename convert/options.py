"""The command line of ``python -m convert``; the config's flags come from the config's fields."""

import argparse
import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

from convert.families import tutorial
from convert.targets import CONTAINERS, FAMILIES
from transformer_spec import TransformerConfig, UserError

DESCRIPTION = """Convert a model between the PyTorch and the Flax twin, or from another code's
checkpoint. Nothing is changed in place, and every tensor is accounted for."""
EXAMPLES = """examples:
  python -m convert runs/demo demo-torch --to torch
      the best checkpoint of a run, of either backend, as model.safetensors
  python -m convert runs/demo/checkpoints/step_00001000 demo-flax --to flax
      one checkpoint, optimizer moments included, as an Orbax folder
  python -m convert demo-torch demo-flax --to flax --container safetensors --dry-run
      what would be done with every tensor; nothing is written
  python -m convert model.pt mine --to flax --config config.json --hidden-dim 512
      a weight file; the config comes from a file, flags win over it
  python -m convert tutorial.pt mine --from tutorial --to flax --hidden-dim 256 --inner-dim 512 \\
      --num-heads 8 --num-encoder-layers 3 --num-decoder-layers 3 \\
      --source-vocab-size 7855 --target-vocab-size 5893
      a checkpoint of the PyTorch tutorial, either published form
"""
CONFIG_FIELDS = dataclasses.fields(TransformerConfig)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m convert",
        usage="python -m convert SOURCE DEST --to FAMILY [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = result.add_argument
    add("source", type=Path, metavar="SOURCE",
        help="run folder, checkpoint folder, converted folder, Orbax folder, or weight file "
        "(.safetensors, .safetensors.index.json, .pt, .pth, .bin)")  # fmt: skip
    add("dest", type=Path, metavar="DEST", help="new folder; it must not exist")
    add("--to", required=True, choices=FAMILIES, help="whose names and layout to write")
    add("--from", dest="family", default="twinformer", choices=("twinformer", "tutorial"),
        help="whose names the source has (default: twinformer, either twin)")  # fmt: skip
    add("--container", choices=CONTAINERS,
        help="file format (default: torch safetensors, flax orbax, tutorial pt)")  # fmt: skip
    add("--key", help="which dict of a nested .pt file holds the weights")
    add("--dry-run", action="store_true", help="print the plan from headers alone, write nothing")
    add("--config", type=Path, metavar="FILE.json",
        help="the model's config, for a source that has no config.json")  # fmt: skip
    _add_config_flags(result)
    return result


def _add_config_flags(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group(
        "model config", "for a source without config.json; a config is never guessed from weights"
    )
    hints = typing.get_type_hints(TransformerConfig)
    for field in CONFIG_FIELDS:
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=field.metadata["help"],
            **_argument(field, hints[field.name]),
        )


def _argument(field: dataclasses.Field, annotation: Any) -> dict[str, Any]:
    """How argparse reads a field: a flag with its negation, a choice, or a number."""
    kinds = set(typing.get_args(annotation) or (annotation,)) - {type(None)}
    (kind,) = kinds
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if field.metadata["choices"]:
        return {"choices": field.metadata["choices"]}
    return {"type": kind, "metavar": "N" if kind is int else "X"}


def given_config(options: argparse.Namespace, home: Path | None) -> TransformerConfig:
    """The config of the source's folder, or of --config and flags; never both."""
    flags = {f.name: getattr(options, f.name) for f in CONFIG_FIELDS if hasattr(options, f.name)}
    if home is not None:
        if flags or options.config:
            raise UserError(
                f"{home / 'config.json'} says what the model is; leave out --config and the "
                f"config flags ({', '.join(flags) or '--config'})"
            )
        return TransformerConfig.load(home / "config.json")
    values = tutorial.DEFAULTS if options.family == "tutorial" else {}
    if options.config:
        values = values | _read_config(options.config)
    elif not flags:
        raise UserError(
            f"{options.source} comes without config.json; say what the model is with --config "
            "FILE.json or flags such as --hidden-dim 512 (see --help)"
        )
    return TransformerConfig.from_dict(values | flags)


def _read_config(path: Path) -> dict[str, Any]:
    """The fields in a config.json of ours, or in a plain JSON object of fields."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object of config fields")
    return TransformerConfig.load(path).to_dict() if "model" in content else content
