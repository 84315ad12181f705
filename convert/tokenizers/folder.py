"""A folder of another library as its tokenizer sees it: files, names of tokens, added tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training_recipe.text.added_rules import RULES
from transformer_spec import TransformerConfig, UserError
from transformer_spec.errors import printable_name
from transformer_spec.json_text import parse_json

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
JSON = "tokenizer.json"
POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Folder:
    """The folder, the content of its config.json, and the config of the model in it."""

    path: Path
    settings: Mapping[str, Any]
    config: TransformerConfig

    def has(self, *names: str) -> bool:
        return all((self.path / name).is_file() for name in names)

    def read(self, name: str) -> bytes:
        """The bytes of a file; one that cannot be read or was not downloaded is a UserError."""
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError:
            raise UserError(f"{name} is missing") from None
        except OSError as error:
            raise UserError(f"{name} cannot be read: {error.strerror or error}") from None
        if data.startswith(POINTER):
            raise UserError(f"{name} is a pointer of Git LFS; fetch the file itself (git lfs pull)")
        if not data:
            raise UserError(f"{name} is empty")
        return data

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Files by their names; all that are missing or unreadable are in one UserError."""
        found, faults = {}, []
        for name in names:
            try:
                found[name] = self.read(name)
            except UserError as error:
                faults.append(str(error))
        if faults:
            raise UserError("; ".join(faults))
        return found

    def read_object(self, name: str) -> dict[str, Any]:
        """The JSON object of a file; an empty one where there is no file."""
        if not self.has(name):
            return {}
        try:
            content = parse_json(self.read(name).decode("utf-8-sig"))
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{name} is cut short or damaged: {error}") from None
        if not isinstance(content, dict):
            raise UserError(f"{name} holds no JSON object")
        return content

    @cached_property
    def about(self) -> dict[str, Any]:
        """tokenizer_config.json, with special_tokens_map.json where that says no more."""
        return {**self.read_object(MAP), **self.read_object(CONFIG)}

    @cached_property
    def tokenizer_class(self) -> str:
        """The library's class, as far as the folder names one."""
        for place in (self.about, self.settings):
            name = place.get("tokenizer_class")
            if isinstance(name, str):
                return name.removesuffix("Fast")
        return ""

    def name_of(self, role: str, default: str) -> str:
        """How a special token is spelled: ``role`` is such as eos_token."""
        given = self.about.get(role)
        name = given.get("content") if isinstance(given, dict) else given
        return name if isinstance(name, str) else default

    @cached_property
    def numbered(self) -> dict[str, tuple[int, bool]]:
        """Tokens that files give an id of their own, and whether they are special.

        tokenizer_config.json outweighs tokenizer.json, and that added_tokens.json.
        """
        special = set(self.listed)
        alone = [
            _token(ADDED, {"content": name, "special": name in special}, index)
            for name, index in self.read_object(ADDED).items()
        ]
        tokens = [*alone, *self._tokens_of_json(), *self._tokens_of_config()]
        return {name: (index, is_special) for name, index, is_special in tokens}

    @cached_property
    def rules(self) -> dict[str, frozenset[str]]:
        """Tokens that stand for whole words alone, or take the spaces beside them along."""
        rows = [*self._rows_of_json(), *(row for _, row in self._rows_of_config())]
        told = {str(row.get("content")): row for row in rows}
        found = {n: frozenset(r for r in RULES if row.get(r) is True) for n, row in told.items()}
        return {name: rules for name, rules in found.items() if rules}

    @cached_property
    def pipeline(self) -> dict[str, Any]:
        """tokenizer.json, which may be large."""
        return self.read_object(JSON)

    def _rows_of_json(self) -> list[dict[str, Any]]:
        tokens = self.pipeline.get("added_tokens")
        return [row for row in tokens if isinstance(row, dict)] if isinstance(tokens, list) else []

    def _rows_of_config(self) -> list[tuple[str, dict[str, Any]]]:
        tokens = self.about.get("added_tokens_decoder")
        rows = tokens if isinstance(tokens, dict) else {}
        return [(number, row) for number, row in rows.items() if isinstance(row, dict)]

    def _tokens_of_json(self) -> list[tuple[str, int, bool]]:
        return [_token(JSON, row, row.get("id")) for row in self._rows_of_json()]

    def _tokens_of_config(self) -> list[tuple[str, int, bool]]:
        return [
            _token(CONFIG, row, int(number) if number.isdecimal() else number)
            for number, row in self._rows_of_config()
        ]

    @cached_property
    def listed(self) -> list[str]:
        """Special tokens that are listed without an id, in order."""
        names = []
        for key in ("additional_special_tokens", "extra_special_tokens"):
            given = self.about.get(key)
            for token in given if isinstance(given, list) else ():
                name = token.get("content") if isinstance(token, dict) else token
                names += [name] if isinstance(name, str) else []
        return list(dict.fromkeys(names))


def _token(place: str, row: Mapping[str, Any], index: object) -> tuple[str, int, bool]:
    name = row.get("content")
    if not isinstance(name, str) or not name or type(index) is not int or index < 0:
        shown = printable_name(row.get("content"))
        raise UserError(f"{place} has an added token without name or id ({shown}: {index})")
    return name, index, row.get("special") is True
