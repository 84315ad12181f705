"""The command line of ``train.py``, derived from the declared settings."""

from __future__ import annotations

import argparse
from typing import Any

from training_recipe.options.declarations import REQUIRED, Declaration, as_text, read_text
from training_recipe.options.parser import Formatter, Parser, closest
from training_recipe.options.presets import DEFAULT_PRESET, PRESETS
from training_recipe.options.request import ALL, Request, make_request
from transformer_spec.errors import Faults

GROUPS = {
    "data": "data",
    "model": "model",
    "optimisation": "optimisation",
    "evaluation": "evaluation",
    "run": "run",
}
METAVARS = {int: "N", float: "X", str: "TEXT", tuple: "A,B"}
EXAMPLES = """\
examples:
  python train.py                                      CMUdict: spelling in, phonemes out
  python train.py --data corpus --source-lang en --target-lang de --backend torch
  python train.py --data pairs.tsv --columns Q,A --preset tiny
  python train.py --resume runs/NAME --backend torch   go on, in either framework
"""


def parser() -> argparse.ArgumentParser:
    """Every flag once, in its group; values stay text so that all faults are found together."""
    made = Parser(
        prog="train.py",
        usage="train.py [--backend jax|torch] [--recipe FILE | --resume RUN] [--SETTING VALUE ...]",
        description="Train an encoder-decoder Transformer in JAX or PyTorch.",
        epilog=EXAMPLES,
        formatter_class=Formatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups = {group: made.add_argument_group(title) for group, title in GROUPS.items()}
    for declaration in ALL.values():
        _add(groups[declaration.group], declaration)
    return made


def _add(group: argparse._ArgumentGroup, declaration: Declaration) -> None:
    text = (declaration.help + _default(declaration)).replace("%", "%%")
    if declaration.type is bool:
        group.add_argument(declaration.flag, help=text, action=argparse.BooleanOptionalAction)
        return
    choices = "{" + ",".join(declaration.choices) + "}"
    metavar = choices if declaration.choices else METAVARS[declaration.type]
    group.add_argument(declaration.flag, help=text, metavar=metavar)


def _default(declaration: Declaration) -> str:
    value = declaration.default
    if value is REQUIRED:
        value = PRESETS[DEFAULT_PRESET]["model"][declaration.name]
        return f" [{value} in preset {DEFAULT_PRESET}]"
    if value is None:
        return "" if "none:" in declaration.help or "default:" in declaration.help else " [none]"
    return f" [{as_text(value)}]"


def parse(arguments: list[str] | None = None) -> Request:
    """The request of a command line; every fault of it is named in one UserError."""
    known, unknown = parser().parse_known_args(arguments)
    faults = Faults()
    for fault in _unknown_faults(unknown):
        faults.add(fault)
    return make_request(_typed(vars(known), faults), faults)


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
            faults.append(f"unknown flag {name}{closest(name, flags)}")
        elif not after_flag:
            faults.append(f"unexpected word {word!r}")
        after_flag = word.startswith("-")
    return faults
