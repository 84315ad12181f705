"""``python -m convert SOURCE DEST --to FAMILY``: a checkpoint into a new folder."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from convert.commands.source import add_source_flags, size, source_fields
from convert.conversion.conversion import convert
from convert.conversion.request import DTYPES, ConversionRequest
from convert.conversion.target import NAMES, containers, targets
from convert.exports.ctranslate2_model import QUANTIZATIONS
from training_recipe.options.parser import Parser

DESCRIPTION = """Convert a model between the PyTorch and the Flax twin, or from another code's
checkpoint. Nothing is changed in place, and every tensor and every file is accounted for: card,
licence, tokenizer and generation settings of another library's folder come along and go back."""
USAGE = """python -m convert SOURCE DEST --to FAMILY [options]
       python -m convert inspect CHECKPOINT [options]
       python -m convert names CHECKPOINT [--output FILE.toml]
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
  python -m convert Helsinki-NLP/opus-mt-en-de mine --to flax
      a repository of the Hugging Face Hub; @REVISION behind it names a branch, tag or commit
  python -m convert mine back --to marian
      the library's folder again, with all files that came with it
  python -m convert t5x/small/checkpoint_1100000 mine --to torch --activation gelu_tanh
      a checkpoint of T5X; a config.gin beside it says the activation, and --to t5x writes one
  python -m convert inspect model.pt
      what a checkpoint is; nothing is converted
  python -m convert names model.pt --output mine.toml
      a table of names for a module of your own, to be looked at; --names takes it
  python -m convert average runs/demo demo-mean --last 5
      the mean of a run's last five checkpoints, as a model of its own
"""

ALL_TARGETS = f"{', '.join(targets())}, or {NAMES}FILE.toml, a table of names"
# Families that are published under a name of their own, and the class that computes them.
CLASSES = {
    **dict.fromkeys(("nllb", "nllb200", "nllb-200", "small100"), "m2m100"),
    **dict.fromkeys(("mbart50", "mbart-50", "mbart-large-50"), "mbart"),
    **dict.fromkeys(("opus-mt", "opus", "marianmt", "marian-mt"), "marian"),
    **dict.fromkeys(("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b", "t5-v1.1"), "t5"),
    **dict.fromkeys(("flan-t5", "byt5", "codet5", "ul2", "flan-ul2", "madlad", "madlad-400"), "t5"),
    **dict.fromkeys(("mt0", "aya", "aya-101"), "mt5"),
    **dict.fromkeys(("pile-t5",), "umt5"),
}


def target(name: str) -> str:
    """The name of a target; a family by its published name is told the one that it has here.

    A table of names is a target too.
    """
    if name not in targets() and (known := CLASSES.get(name.lower())):
        raise argparse.ArgumentTypeError(f"{name!r}: its class is {known}, so --to {known}")
    if name not in targets() and not name.startswith(NAMES):
        raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {ALL_TARGETS})")
    return name


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
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
        help="run folder, checkpoint folder, converted folder, Orbax folder, weight file "
        "(.safetensors, .safetensors.index.json, .pt, .pth, .bin), T5X folder or file, or "
        "OWNER/NAME[@REVISION] of the "
        "Hugging Face Hub")  # fmt: skip
    add("dest", type=Path, metavar="DEST", help="new folder; it must not exist")
    add("--to", required=True, type=target, metavar="FAMILY",
        help=f"whose names and layout to write: {ALL_TARGETS}")  # fmt: skip
    add("--container", choices=containers(),
        help="file format (default: flax orbax, tutorial and torch-nn pt, t5x its own, the others "
        "safetensors); of torch, pt has an optimizer.pt with the source's groups and settings, as "
        "far as they are known")  # fmt: skip
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
        help="cut safetensors or msgpack into files of at most this size, as in 5GB or 300MiB",
    )
    add("--dry-run", action="store_true", help="print the plan from headers alone, write nothing")
    add_source_flags(result)
    return result


def run(words: Sequence[str]) -> str:
    """Do what the words say, or with --dry-run only say it; the lines to print."""
    options = parser().parse_args(words)
    request = ConversionRequest(
        **source_fields(options),
        destination=options.dest,
        to=options.to,
        container=options.container,
        dtype=options.dtype,
        shard_size=options.shard_size,
        quantization=options.quantization,
        dry_run=options.dry_run,
    )
    return convert(request).text
