"""Tables that give pieces their ids, in the files of several libraries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from transformer_spec.json_text import parse_json


def read_table(
    table: object, first: object, files: Mapping[str, bytes], model_pieces: Sequence[str]
) -> dict[str, int]:
    """Piece -> id, as a description says; a ValueError says what is wrong.

    ``first`` are pieces with the first ids where the rest is in order.
    """
    front = [] if first is None else _pieces(first, "first")
    if not isinstance(table, dict):
        raise ValueError("it has no table of ids")
    if "from" in table:
        start = table["from"]
        if type(start) is not int or not 0 <= start <= len(model_pieces):
            raise ValueError(f"its pieces are said to count from {start!r}")
        return _in_order([*front, *model_pieces[start:]], "the model")
    if "pieces" in table:
        return _in_order([*front, *_pieces(table["pieces"], "pieces")], "its table")
    name = table.get("file")
    if not isinstance(name, str) or name not in files:
        raise ValueError("it names no table among its files")
    return _read(name, table.get("format"), files[name], front)


def _read(name: str, kind: object, data: bytes, front: list[str]) -> dict[str, int]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is damaged: it is not UTF-8") from None
    if kind == "lines":
        return _in_order([*front, *_lines(name, text)], name)
    if kind not in ("json", "yaml"):
        raise ValueError(f"the format of {name} is {kind!r}; known: json, yaml, lines")
    try:
        found = parse_json(text) if kind == "json" else _parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{name} is cut short or damaged: {error}") from None
    return _checked(name, found)


def _lines(name: str, text: str) -> list[str]:
    """Pieces of fairseq's dictionary: a piece and how often it came, a line each."""
    pieces = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        parts = line.removesuffix("\r").removesuffix(" #fairseq:overwrite").rsplit(" ", 1)
        if len(parts) != 2 or not parts[1].isdigit():
            raise ValueError(f"line {number} of {name} is no piece with a count")
        pieces.append(parts[0])
    return pieces


def _parse_yaml(text: str) -> Any:
    import yaml

    # No scalar is anything but text: there are pieces such as null, 1.5 and yes.
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        found = yaml.load(text, loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(getattr(error, "problem", None) or "it is no YAML") from None
    if isinstance(found, dict):
        return {k: int(v) if str(v).isdecimal() else v for k, v in found.items()}
    return found


def _checked(name: str, found: Any) -> dict[str, int]:
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{name} holds no pieces with ids")
    for piece, index in found.items():
        if type(piece) is not str or type(index) is not int or not 0 <= index < 2**31:
            raise ValueError(f"{name} gives {piece!r} the id {index!r}, which is none")
    numbers = Counter(found.values())
    if len(numbers) < len(found):
        twice = numbers.most_common(1)[0][0]
        same = [piece for piece, index in found.items() if index == twice]
        raise ValueError(f"{name} gives {same[0]!r} and {same[1]!r} one id, {twice}")
    return found


def _in_order(pieces: list[str], name: str) -> dict[str, int]:
    table = {piece: index for index, piece in enumerate(pieces)}
    if len(table) < len(pieces):
        twice = Counter(pieces).most_common(1)[0][0]
        raise ValueError(f"{name} has the piece {twice!r} twice")
    if not table:
        raise ValueError(f"{name} has no pieces")
    return table


def _pieces(given: object, name: str) -> list[str]:
    if not isinstance(given, list) or any(type(piece) is not str for piece in given):
        raise ValueError(f"its {name} are no list of texts")
    return given
