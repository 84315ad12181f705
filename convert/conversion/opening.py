"""A model opened to be used: ours, or another library's read on the fly, with what lies beside it.

Nothing is written. Translating, and training that begins with a model, open theirs here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np

from convert.checkpoints.folders.config_files import no_config
from convert.checkpoints.folders.location import Located, locate
from convert.conversion.conversion import check_unread
from convert.conversion.origin import Origin
from convert.conversion.request import SourceRequest
from convert.conversion.side_files.beside import VOCABULARY, folder_of
from convert.conversion.side_files.imported import (
    Pair,
    imported_vocabularies,
    no_vocabularies,
    not_installed,
    search_beside,
)
from convert.conversion.sources.source import Import, read_import, weights_of
from convert.core.numbers import as_dtype
from convert.core.tensors import Tensors
from training_recipe.runs.folder import RunFolder
from training_recipe.searching.search import Search
from training_recipe.text.model_vocabularies import load_vocabularies
from transformer_spec import TransformerConfig, UserError
from transformer_spec.errors import refusals_told
from transformer_spec.paths import as_path

BEST = "best"
GIVE = "give a run, a converted folder, or a folder of a library that python -m convert reads"


@dataclass(frozen=True)
class OpenModel:
    """A model and what is known of it; ``weights`` reads it.

    ``home`` is the folder of ours that holds config.json, None where the model is another
    library's. ``vocabularies`` are those of source and target; None where there are none, and
    ``no_text`` then says why. ``search`` is what the model was published with or saved with.
    """

    path: Path
    located: Located
    config: TransformerConfig
    vocabularies: Pair | None
    no_text: str
    search: Search | None
    origin: Origin | None
    notes: list[str]
    found: Import = field(repr=False)

    @property
    def home(self) -> Path | None:
        return self.located.home

    @property
    def is_foreign(self) -> bool:
        """Whether the model is another library's and was read on the fly."""
        return self.found.family is not None

    def weights(self) -> dict[str, np.ndarray]:
        """Canonical name -> array; weights that are not what was written are a UserError.

        So are stored tables that are not those which the config stands for.
        """
        return self.tensors().read_all()

    def tensors(self) -> Tensors:
        """The same with no weight read yet, but for stored tables: each is read when asked for."""
        check_unread(self.found.content.tensors, self.found.rules)
        return weights_of(self.found)

    def of_one_format(self) -> Tensors:
        """``tensors`` in the narrowest number format that holds all of theirs exactly."""
        tensors = self.tensors()
        formats = {header.dtype for header in tensors.values()}
        if len(formats) == 1:
            return tensors
        return as_dtype(tensors, reduce(np.promote_types, formats, np.dtype(np.float32)))

    def text(self) -> Pair:
        """The vocabularies; a UserError says why there are none."""
        if self.vocabularies is None:
            raise UserError(self.no_text)
        return self.vocabularies


class _Alone(SourceRequest):
    """A source of which nothing is said: it has to come with its config."""

    def our_config(self, home: Path | None) -> TransformerConfig:
        if home is None:
            raise no_config(self.source, GIVE)
        return super().our_config(home)


@refusals_told()
def open_model(
    path: str | os.PathLike[str],
    *,
    verify: bool = True,
    checkpoint: str | int | None = None,
) -> OpenModel:
    """Open what ``python -m convert`` reads: a run, a folder, a weight file; reads no weight.

    ``checkpoint`` is the step of a run's checkpoint; None and "best" are its best one, or its
    newest. What is no model is a UserError. One without vocabularies, or with damaged ones, is a
    model all the same.
    """
    path = as_path(path, "the folder of a model")
    place = checkpoint_folder(path, BEST if checkpoint is None else checkpoint)
    locate(place)  # what is not there is named as it was typed
    place = Path(os.path.abspath(place))  # weights are read later, maybe from another folder
    located = locate(place)
    found = read_import(_Alone(place, optimizer=False, verify=verify), located)
    vocabularies, no_text = _vocabularies(found)
    search, notes = search_beside(found)
    return OpenModel(
        path, located, found.config, vocabularies, no_text, search, found.origin,
        [*found.notes, *notes], found,
    )  # fmt: skip


def checkpoint_folder(run: Path, checkpoint: str | int = BEST) -> Path:
    """What to load: a folder, which stands for its best checkpoint, or the one of a step."""
    if checkpoint == BEST:
        return run
    folder = RunFolder(run)
    if not folder.checkpoints.is_dir():
        raise UserError(f"checkpoint {checkpoint} needs a run folder, which {run} is not")
    if int(checkpoint) not in folder.steps():
        steps = ", ".join(map(str, folder.steps())) or "none"
        raise UserError(f"{run} has no checkpoint of step {checkpoint}; it has: {steps}")
    return folder.checkpoint(int(checkpoint))


def _vocabularies(found: Import) -> tuple[Pair | None, str]:
    """Both vocabularies, or why there are none."""
    home = found.located.home
    if home is None:
        return imported_vocabularies(found, folder_of(found.located))
    if not (home / VOCABULARY).exists():
        return None, no_vocabularies(home)
    try:
        return load_vocabularies(home / VOCABULARY, found.config), ""
    except ModuleNotFoundError as error:
        return None, f"the vocabularies need {not_installed(error)}"
    except UserError as error:
        return None, str(error)
