"""The command line of ``python -m convert``; the config's flags come from the config's fields."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from convert.exports.ctranslate2_model import QUANTIZATIONS
from convert.families.registry import FAMILIES, OURS
from convert.folders import is_foreign
from convert.targets import CONTAINERS, TARGETS
from training_recipe.options.parser import Parser
from transformer_spec import Faults, TransformerConfig, UserError
from transformer_spec.config import DECLARATIONS
from transformer_spec.declarations import Declaration

DESCRIPTION = """Convert a model between the PyTorch and the Flax twin, or from another code's
checkpoint. Nothing is changed in place, and every tensor is accounted for."""
USAGE = """python -m convert SOURCE DEST --to FAMILY [options]
       python -m convert inspect CHECKPOINT [options]
       python -m convert average RUN DEST [--last N]"""
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
  python -m convert runs/demo demo-ct2 --to ctranslate2 --quantization int8
      a folder that CTranslate2 loads, and the call that translates with it
  python -m convert inspect model.pt
      what a checkpoint is; nothing is converted
  python -m convert average runs/demo demo-mean --last 5
      the mean of a run's last five checkpoints, as a model of its own
"""
INSPECT = "inspect"
DTYPES = ("float16", "bfloat16", "float32", "float64")


def parser() -> argparse.ArgumentParser:
    result = Parser(
        prog="python -m convert",
        usage=USAGE,
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
    add("--to", required=True, choices=TARGETS, help="whose names and layout to write")
    add(
        "--container",
        choices=CONTAINERS,
        help="file format (default: flax orbax, tutorial and torch-nn pt, the others safetensors)",
    )
    add(
        "--dtype", choices=DTYPES, help="write weights in this number format (default: as they are)"
    )
    add(
        "--quantization",
        choices=QUANTIZATIONS,
        help="ctranslate2: how its library stores the weights (default: float32)",
    )
    add(
        "--shard-size",
        type=size,
        metavar="SIZE",
        help="cut safetensors into files of at most this size, as in 5GB or 300MiB",
    )
    add("--dry-run", action="store_true", help="print the plan from headers alone, write nothing")
    _add_source_flags(result)
    _add_config_flags(result)
    return result


def inspect_parser() -> argparse.ArgumentParser:
    """The flags of ``python -m convert inspect``."""
    result = Parser(
        prog="python -m convert inspect",
        description="What a checkpoint is, from its headers alone; no tensor is read.",
        allow_abbrev=False,
    )
    result.add_argument("source", type=Path, metavar="CHECKPOINT", help="as SOURCE of a conversion")
    result.add_argument("--json", action="store_true", help="print JSON")
    _add_source_flags(result)
    _add_config_flags(result)
    return result


def _add_source_flags(result: argparse.ArgumentParser) -> None:
    """What reads a source; ``inspect`` has them too."""
    add = result.add_argument_group("source").add_argument
    add(
        "--from",
        dest="family",
        choices=(OURS, *FAMILIES),
        help="whose names the source has (default: found out from names and settings)",
    )
    add("--key", help="which dict of a nested .pt file holds the weights")
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
        help="leave this tensor of the source out; repeatable",
    )
    add(
        "--parameter-names",
        type=Path,
        metavar="FILE",
        help="names of the optimizer's parameters, one a line, in its own order",
    )


def _add_config_flags(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group(
        "model config", "for a source without config.json; a config is never guessed from weights"
    )
    group.add_argument("--config", type=Path, metavar="FILE.json", help="these settings in a file")
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


def given_config(options: argparse.Namespace, home: Path | None) -> TransformerConfig:
    """The config of the source's folder, or of --config and flags; never both."""
    flags = config_flags(options)
    if home is not None:
        if flags:
            raise UserError(
                f"{home / 'config.json'} says what the model is; leave out --config and the "
                f"config flags ({', '.join(flags)})"
            )
        return TransformerConfig.load(home / "config.json")
    if not flags:
        raise UserError(
            f"{options.source} comes without config.json; say what the model is with --config "
            "FILE.json or flags such as --hidden-dim 512 (see --help)"
        )
    return TransformerConfig.from_dict(flags)


def config_flags(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of our config that --config and flags give, flags winning."""
    flags = {name: getattr(options, name) for name in DECLARATIONS if hasattr(options, name)}
    content = _read_json(options.config) if options.config else {}
    if "model" in content:
        content = TransformerConfig.load(options.config).to_dict()
    return ({} if is_foreign(content) else content) | flags


def given_settings(options: argparse.Namespace) -> dict[str, Any] | None:
    """The content of --config where it is another library's."""
    content = _read_json(options.config) if options.config else {}
    return content if is_foreign(content) else None


def wrapper_of(options: argparse.Namespace) -> dict[str, str]:
    """--map as a mapping; what is no pair, or given twice, is a UserError."""
    faults, wrapper = Faults(), {}
    for pair in options.map:
        ours, equals, theirs = pair.partition("=")
        faults.require(bool(ours and equals), f"{pair!r} is not of the form OURS=THEIRS")
        faults.require(ours not in wrapper, f"{ours!r} is given twice")
        wrapper[ours] = theirs
    faults.raise_if_any("--map")
    return wrapper


def size(text: str) -> int:
    """Bytes of a size such as 5GB, 300MiB or 1000000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", text)
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 5GB, 300MiB or 1000000")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kMGT".index(match[2] or " "))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object of config fields")
    return content
