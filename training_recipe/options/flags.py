"""The command line of ``train.py``, derived from the declared settings."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any

from training_recipe.options.invocation import words
from training_recipe.options.parser import Formatter, Parser
from training_recipe.options.presets import PRESETS
from training_recipe.options.request import ALL, OF_THE_MODEL, Layer, Request, layers, make_request
from training_recipe.options.usual_names import meant
from transformer_spec.declarations import Declaration, as_text, read_text
from transformer_spec.errors import Faults

GROUPS = ("data", "model", "optimisation", "evaluation", "run")
METAVARS = {int: "N", float: "X", str: "TEXT", tuple: "A,B"}
EXAMPLES = """\
examples:
  {train}                                      CMUdict: spelling in, phonemes out
  {train} --data corpus --source-lang en --target-lang de --backend torch
  {train} --data pairs.tsv --columns Q,A
  {train} --init FOLDER --data pairs.tsv       go on from a model of any library that convert reads
  {train} --preset base --help                 what that preset makes of every setting
  {train} --resume runs/NAME --backend torch   go on, in either framework
  {train} --backend jax --mesh data=-1         on all devices of this machine
  torchrun --nproc-per-node 8 train.py --backend torch --mesh data=2,fsdp=4
"""


def parser(said: list[Layer] | None = None) -> Parser:
    """Every flag once, in its group; values stay text so that all faults are found together.

    Its help shows what every setting will be where ``said`` is all that is said of them.
    """
    train = words("train")
    made = Parser(
        prog=train,
        usage=f"{train} [--backend jax|torch] [--recipe FILE | --init FOLDER | --resume RUN] "
        "[--SETTING VALUE ...]",
        description="Train an encoder-decoder Transformer in JAX or PyTorch. In brackets: what a "
        "setting is without its flag, and which preset or recipe says so.",
        epilog=f"{_presets()}\n{EXAMPLES.format(train=train)}",
        formatter_class=Formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        add_help=False,
    )
    made.add_argument("-h", "--help", action="store_true", help="show this and do nothing else")
    groups = {group: made.add_argument_group(group) for group in GROUPS}
    for declaration in ALL.values():
        _add(groups[declaration.group], declaration, _shown(declaration, said or []))
    return made


def _add(group: argparse._ArgumentGroup, declaration: Declaration, shown: str) -> None:
    text = (declaration.help + shown).replace("%", "%%")
    if declaration.type is bool:
        group.add_argument(declaration.flag, help=text, action=argparse.BooleanOptionalAction)
        return
    choices = "{" + ",".join(declaration.choices) + "}"
    metavar = choices if declaration.choices else METAVARS[declaration.type]
    group.add_argument(declaration.flag, help=text, metavar=metavar)


def _shown(declaration: Declaration, said: list[Layer]) -> str:
    """The value in brackets, and which place says so where it is not the plain default."""
    places = [layer for layer in said if declaration.name in layer.values]
    if not places:
        return ""
    value, place = places[-1].values[declaration.name], places[-1].place
    if value is None and ("none:" in declaration.help or "default:" in declaration.help):
        return ""
    begun = any(layer.values.get("init") is not None for layer in said)
    if begun and place == "default" and declaration.name in OF_THE_MODEL:
        return " [the model's own]"
    plain = place == "default" or declaration.name == "preset"
    return f" [{as_text(value)}{'' if plain else f', {place}'}]"


def _presets() -> str:
    """What each preset changes, a paragraph each."""
    lines = ["presets:"]
    for preset, tables in PRESETS.items():
        values = {name: value for table in tables.values() for name, value in table.items()}
        text = ", ".join(f"{name} {as_text(value)}" for name, value in values.items())
        lines += textwrap.wrap(
            text, 98, initial_indent=f"  {preset + ':':<10}", subsequent_indent=" " * 12
        )
    return "\n".join([*lines, ""])


def parse(arguments: list[str] | None = None) -> Request:
    """The request of a command line; every fault of it is named in one UserError.

    ``--help`` among the arguments is printed, with the values that the others lead to.
    """
    known, unknown = parser().parse_known_args(arguments)
    faults, texts = Faults(), vars(known)
    for fault in _unknown_faults(unknown):
        faults.add(fault)
    asked_for_help = texts.pop("help", False)
    flags = _typed(texts, faults)
    if asked_for_help:
        # A resumed run has settings of its own.
        said = None if "resume" in flags else layers(flags, faults)
        faults.raise_if_any("cannot say what would happen")
        parser(said).print_help()
        sys.exit(0)
    return make_request(flags, faults)


def _typed(texts: dict[str, Any], faults: Faults) -> dict[str, Any]:
    values = {}
    for name, text in texts.items():
        try:
            values[name] = text if isinstance(text, bool) else read_text(ALL[name], text)
        except ValueError as error:
            faults.add(f"{ALL[name].flag}: {error}")
    return values


def _unknown_faults(unknown: list[str]) -> list[str]:
    """One fault for each unknown flag; the words after it are its values."""
    flags = [declaration.flag for declaration in ALL.values()]
    faults, after_flag = [], False
    for word in unknown:
        if word.startswith("-"):
            name = word.split("=")[0]
            faults.append(f"unknown flag {name}{meant(name, flags)}")
        elif not after_flag:
            faults.append(f"unexpected word {word!r}")
        after_flag = word.startswith("-")
    return faults
