"""The tables that come with the program, and those of the user's files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from convert.naming.family import NamedFamily
from convert.naming.parsing import parse_table, read_table
from transformer_spec import UserError

PACKAGE, FOLDER, ENDING = "convert.naming", "tables", ".toml"


@cache
def shipped_families() -> tuple[NamedFamily, ...]:
    """A family for each table, in the order of their names."""
    places = sorted(
        (place for place in (files(PACKAGE) / FOLDER).iterdir() if place.name.endswith(ENDING)),
        key=lambda place: place.name,
    )
    texts = {place.name: place.read_text(encoding="utf-8") for place in places}
    return tuple(NamedFamily(parse_table(text, name)) for name, text in texts.items())


def table_text(name: str) -> str:
    """The text of a table that comes with the program."""
    return (files(PACKAGE) / FOLDER / f"{name}{ENDING}").read_text(encoding="utf-8")


def named_family(given: str) -> NamedFamily:
    """The family of a table: one that comes with the program, by its name, or that of a file."""
    shipped = {family.name: family for family in shipped_families()}
    if given in shipped:
        return shipped[given]
    if not Path(given).is_file():
        raise UserError(
            f"{given} is no file, and no table of that name comes with the program; those that do: "
            f"{', '.join(shipped)}"
        )
    return NamedFamily(read_table(Path(given)))
