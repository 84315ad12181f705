"""The groups of an optimizer in conversion.json, for the way back to a file of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.checkpoints.optimizers.torch_states import Group, group_from
from convert.core.ledger import LEDGER_VERSION
from training_recipe.files.json_files import read_json
from transformer_spec import UserError

GROUPS = "optimizer_groups"
SETTINGS_KNOWN = "optimizer_settings_known"  # false, or not there


@dataclass(frozen=True)
class Kept:
    """Groups that a conversion kept, and whether those that the moments were trained in were known.

    Moments that were changed since are others: ``compared`` says that they are compared with it.
    """

    groups: list[Group] = field(default_factory=list)
    known: bool = False
    compared: bool = False

    @property
    def sure(self) -> bool:
        return self.known and self.compared


def as_kept(groups: Sequence[Group]) -> list[list[Any]]:
    """Groups as JSON has them, each as its names and its settings."""
    return [[group.names, group.settings] for group in groups]


def kept_groups(ledger: Path, compared: bool) -> Kept:
    """Those that a conversion kept; none where there is no file, or one of another version.

    ``compared`` says whether all moments that are there are compared with what it wrote.
    """
    try:
        content = read_json(ledger) if ledger.is_file() else {}
    except UserError:
        return Kept()  # whoever compares tensors with it says what is wrong
    if content.get("format_version") != LEDGER_VERSION:
        return Kept()
    try:
        groups = [group_from(names, settings) for names, settings in content.get(GROUPS, [])]
        return Kept(groups, content.get(SETTINGS_KNOWN) is not False, compared)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{ledger} is damaged: its {GROUPS} are not what was written; delete it to read without"
        ) from error
