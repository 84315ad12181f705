"""In which groups the moments of a source were trained, how that is known, and what is written."""

from __future__ import annotations

import os
from pathlib import Path

from convert.checkpoints.layouts import FIRST, SECOND
from convert.checkpoints.optimizers.groups import (
    RUNS,
    Known,
    OwnGroups,
    library_groups,
    own_groups,
    renamed,
    run_groups,
    same_settings,
)
from convert.conversion.sources.source import Import
from convert.conversion.target import Target, pairs_before
from convert.core.rules import Rule

KEPT = "those in conversion.json, of moments that are not known to be these"
OLD_RUN = "those of the run in settings.json, whose moments are not known to be these"
IMPORTED = "those of the import in origin.json, whose moments are not known to be these"


def groups_of(source: Import, target: Target, exports: list[Rule]) -> OwnGroups:
    """The groups of a torch optimizer that is written, and what to say of them.

    None where none is written: no moments come along, or they go by name.
    """
    nothing, origin = OwnGroups([], []), source.origin
    if not source.has_moments or source.content.layout.has_raw(source.content.tensors):
        return nothing
    if target.family is None:
        pickled = target.container == "pt"
        return own_groups(source.config, known_groups(source)) if pickled else nothing
    if origin is None or origin.family != target.family.name:
        return nothing
    moments = {t for rule in exports for t in rule.targets if t.startswith((FIRST, SECOND))}
    named = {first + name for g in origin.groups for name in g.names for first in (FIRST, SECOND)}
    if not named >= moments:
        return nothing
    if source.family is not None:
        return OwnGroups(origin.groups, [])
    pairs = pairs_before(origin, source.config)
    return library_groups(origin.groups, pairs, known_groups(source))


def known_groups(source: Import) -> Known:
    """Those that the moments were trained in, or the last that are known of other moments.

    An optimizer of torch says its own, conversion.json those of the moments that it wrote, and
    settings.json those of a run. Where moments were trained on since, none of their files says how,
    nor does an optimizer of torch that was written of such ones and left as it was.
    """
    last = _last_known(source)
    if source.groups:
        untold = source.kept.compared and not source.kept.known and bool(last.groups)
        as_written = untold and same_settings(source.groups, last)
        return last if as_written else Known(source.groups)
    return last


def _last_known(source: Import) -> Known:
    """What is known where no optimizer of torch says its own."""
    kept, home, origin = source.kept, source.located.home, source.origin
    of_run = run_groups(source.config, home)
    if kept.groups:
        return Known(kept.groups) if kept.sure else Known(kept.groups, KEPT, False)
    if of_run:
        sure = kept.sure or (home is not None and _is_of_run(source.located.weights, home))
        return Known(of_run, RUNS) if sure else Known(of_run, OLD_RUN, False)
    before = renamed(origin.groups, pairs_before(origin, source.config)) if origin else []
    return Known(before, IMPORTED, not any(group.names for group in before))


def _is_of_run(weights: Path, home: Path) -> bool:
    """Whether weights lie in a checkpoint of the run in ``home``."""
    checkpoints = Path(os.path.realpath(home / "checkpoints"))
    return checkpoints in Path(os.path.realpath(weights)).parents
