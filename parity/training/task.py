"""What ``python -m parity train`` is to train: a run folder's settings, a recipe's or the defaults.

No framework is needed to read them, so that mistakes are said at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_recipe.options.settings import TrainingSettings
from transformer_spec import DROPOUTS, TransformerConfig, UserError

if TYPE_CHECKING:
    from training_recipe.preparation import Prepared


@dataclasses.dataclass(frozen=True)
class Task:
    """Settings, the dropout rates, and how to get at data and config.

    ``changes`` are fields of the config that the command sets; ``folder`` is a run's, if it is one.
    """

    what: str
    settings: TrainingSettings
    rates: dict[str, float]
    prepare: Callable[[TrainingSettings], Prepared]
    folder: Path = Path()
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def changed(self, dropout: float | None, **settings: Any) -> Task:
        """The task with other settings; what is None stays."""
        given = {name: value for name, value in settings.items() if value is not None}
        changes = {} if dropout is None else {"dropout": dropout}
        return dataclasses.replace(
            self,
            settings=dataclasses.replace(self.settings, **given),
            rates=self.rates | changes,
            changes=changes,
        )


def find_task(given: str | None, rest: list[str]) -> Task:
    """Of a run folder, its settings.json, a recipe or, without any, of the defaults.

    ``rest`` are flags of train.py. Anything else is a UserError.
    """
    if given is None or given.endswith(".toml"):
        return _of_recipe(given, rest)
    path = Path(given)
    if rest:
        raise UserError(
            f"{given} has its own settings; {' '.join(rest)} can go with a recipe or the defaults"
        )
    if path.is_dir() or path.name == "settings.json":
        return _of_run(path if path.is_dir() else path.parent)
    state = "is none of these" if path.exists() else "does not exist"
    raise UserError(
        f"{given} {state}: give a run folder, its settings.json or a recipe (.toml) of train.py"
    )


def _of_recipe(recipe: str | None, flags: list[str]) -> Task:
    from training_recipe.options.flags import parse
    from training_recipe.preparation import prepare_new

    request = parse([*flags, *(("--recipe", recipe) if recipe else ())])
    if request.invocation.resume is not None:
        raise UserError("--resume goes on with a run; to compare a run, give its folder instead")
    return Task(
        recipe or "the defaults of train.py",
        request.settings,
        {name: request.model[name] for name in DROPOUTS},
        lambda settings: prepare_new(settings, request.model),
    )


def _of_run(path: Path) -> Task:
    from training_recipe.preparation import prepare_again
    from training_recipe.runs.folder import RunFolder
    from training_recipe.runs.record import RunRecord

    folder = RunFolder.open(path)
    config = TransformerConfig.load(folder.config)
    return Task(
        str(path),
        RunRecord.load(folder.settings).settings,
        rates(config),
        lambda settings: prepare_again(settings, folder),
        path,
    )


def rates(config: TransformerConfig) -> dict[str, float]:
    """The dropout rates of a config."""
    return {name: getattr(config, name) for name in DROPOUTS}


def check_comparable(settings: TrainingSettings, rates: Iterable[float]) -> None:
    """Refuse masks that are each framework's own."""
    if settings.dropout_rng == "native" and any(rates):
        raise UserError(
            "dropout_rng native draws other masks in each framework, so that two equal backends "
            "train differently; compare with --dropout-rng portable, or without dropout"
        )


def separate(rest: list[str]) -> tuple[str | None, list[str]]:
    """The one word among train.py's flags that is no flag's value, and the flags."""
    from training_recipe.options.flags import parser

    unknown = parser().parse_known_args(rest)[1]
    before = [None, *unknown]
    # What follows an unknown flag is its value; the flag's fault is said later.
    words = [
        w for w, b in zip(unknown, before, strict=False) if not _is_flag(w) and not _is_flag(b)
    ]
    if len(words) > 1:
        raise UserError(f"one SETTINGS can be compared, not {' and '.join(words)}")
    if not words:
        return None, rest
    place = rest.index(words[0])
    return words[0], rest[:place] + rest[place + 1 :]


def _is_flag(word: str | None) -> bool:
    return word is not None and word.startswith("-")
