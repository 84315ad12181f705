"""What a new run begins with: vocabularies and weights of its own, or the model of a folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from convert.conversion.opening import OpenModel, open_model
from convert.conversion.origin import ORIGIN
from convert.conversion.side_files.beside import Beside
from convert.conversion.side_files.made_files import carry, plan_files
from convert.conversion.target import Target
from convert.core.numbers import as_dtype
from convert.core.tensors import as_parts
from convert.families.registry import FAMILIES
from training_recipe.backend import Checkpoint
from training_recipe.options.request import OF_THE_MODEL
from training_recipe.options.settings import TrainingSettings
from training_recipe.preparation import Prepared, check_data, prepare_from, prepare_new
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.progress import Progress
from training_recipe.searching.search import Search
from training_recipe.text.model_vocabularies import spare_rows, spoken
from transformer_spec import Faults, UserError
from twinformer.training.states import first_state


@dataclasses.dataclass(frozen=True)
class Beginning:
    """A run before its first step; ``opened`` is the model of ``--init``, where there is one."""

    settings: TrainingSettings
    prepared: Prepared
    opened: OpenModel | None = None

    @property
    def notes(self) -> list[str]:
        """What the log says of the model that came."""
        if self.opened is None:
            return []
        named = f"begins with the model of {self.opened.path}"
        rows = spare_rows(self.opened.text(), self.opened.config)
        return [f"{named}; it is validated before the first step", *self.opened.notes, *rows]

    def state(self) -> Checkpoint:
        """The weights, read or drawn."""
        if self.opened is None:
            return first_state(self.prepared.config, self.settings)
        weights = as_dtype(self.opened.tensors(), np.dtype(self.settings.weight_dtype))
        return Checkpoint(as_parts(weights), label=str(self.opened.path))

    def progress(self) -> Progress:
        """Nothing done; a model that came is to be validated first.

        Its loss may be low: no loss has exploded that is one of a model that knows nothing.
        """
        if self.opened is None:
            return Progress()
        return Progress(
            evaluated=False, first_loss=math.log(self.prepared.config.target_vocab_size)
        )

    def save(self, run: RunFolder) -> None:
        """Write config.json, vocabulary/ and what else came with the model."""
        if self.opened is not None:
            write_beside(self.opened, run)
        self.prepared.save(run)


def begin(
    settings: TrainingSettings,
    model: Mapping[str, Any],
    given: Collection[str],
    verify: bool,
    shared: str | None = None,
) -> Beginning:
    """What the settings say to begin with; ``given`` names what the user has said himself.

    ``shared`` is what the processes of a host hold the data by, where there are several.
    """
    if settings.init is None:
        return Beginning(settings, prepare_new(settings, dict(model), shared))
    opened = opened_with_data(settings, settings.init, verify)
    config = dataclasses.replace(opened.config, **model)
    settings = settled(settings, opened, given)
    languages = None if settings.languages is None else ",".join(settings.languages)
    pair = spoken(opened.text(), languages)
    return Beginning(settings, prepare_from(settings, pair, config, opened.search, shared), opened)


def opened_with_data(settings: TrainingSettings, init: str, verify: bool) -> OpenModel:
    """The model to begin with; where it cannot be read, what is wrong with the data is said too."""
    faults = Faults()
    try:
        return open_model(init, verify=verify)
    except UserError as error:
        try:
            check_data(settings)
        except UserError as other:
            faults.take(error)
            faults.take(other)
            faults.raise_if_any("cannot start")
        raise


def settled(
    settings: TrainingSettings, opened: OpenModel, given: Collection[str]
) -> TrainingSettings:
    """The settings as they are for a model: what nobody gave is as it was published.

    A repository of the Hub is named with its commit.
    """
    search = opened.search or Search()
    known = learns_padding(opened), search.beam, search.length_penalty
    told = dict(zip(OF_THE_MODEL, known, strict=True))
    changed = {name: value for name, value in told.items() if name not in given}
    hub = opened.located.hub
    init = hub.name if hub is not None else settings.init
    return dataclasses.replace(settings, init=init, **changed)


def learns_padding(opened: OpenModel) -> bool:
    """Whether the padding token's row learns from lookups in the library that a model is from."""
    family = FAMILIES.get(opened.origin.family) if opened.origin else None
    return family.padding_gradient if family else True


def write_beside(opened: OpenModel, run: RunFolder) -> None:
    """Write what came with a model beside its weights, so that it can go back where it is from."""
    if opened.home is not None:
        carry(opened.home, run.path, opened.config)
    else:
        ours, beside = Target("torch", "safetensors"), Beside.of(opened.located)
        plan_files(opened.found, ours, None, beside).write(run.path)
    if opened.origin is not None:
        opened.origin.save(run.path / ORIGIN)
