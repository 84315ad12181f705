"""What the state of torch's Adam and AdamW is, and what only resembles it.

Many optimizers keep ``exp_avg`` and ``exp_avg_sq`` that are other numbers than Adam's, or need more
beside them. So what an entry of Adam's has is listed, and not what it must not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convert.formats.content import is_array, some_of
from transformer_spec import Faults, UserError

FIRST_KEY, SECOND_KEY, STEP_KEY = "exp_avg", "exp_avg_sq", "step"
ENTRY = (STEP_KEY, FIRST_KEY, SECOND_KEY)
# What torch.optim's Adafactor and that of transformers keep of matrices.
ADAFACTOR = ("row_var", "exp_avg_sq_row")
# Settings of groups whose optimizer has other moments than Adam's under the same names.
OTHER_MOMENTS: dict[str, str] = {
    "d": "moments are scaled by it, as in Prodigy and D-Adaptation",
    "d0": "moments are scaled by an estimate that began with it, as in Prodigy and D-Adaptation",
}
# What groups of Adam and AdamW have, in torch and elsewhere, and what schedules and people's own
# loops put beside that.
SETTINGS = frozenset(
    "params param_names lr betas eps weight_decay amsgrad maximize foreach capturable "
    "differentiable fused decoupled_weight_decay step bias_correction correct_bias grad_averaging "
    "initial_lr max_lr min_lr base_momentum max_momentum swa_lr lr_scale lr_mult wd_mult "
    "name group_name".split()
)
BIAS_CORRECTION = ("bias_correction", "correct_bias")  # of apex and of older transformers
RESEMBLES = (
    "the optimizer's groups have settings that Adam and AdamW do not ({}): its moments are taken "
    "as Adam's, as they have the same names; where another optimizer made them, --no-optimizer "
    "leaves them out"
)
RADAM = (
    "the optimizer's groups are those of torch.optim.RAdam: it keeps Adam's moments and makes "
    "other updates of them, and AdamW goes on from them here"
)


def check_adam(content: Mapping[str, Any], label: str) -> None:
    """A UserError with every entry of an optimizer's state that is not Adam's or AdamW's."""
    faults = Faults()
    _check_not_adafactor(content, label)
    for index, entry in content["state"].items():
        _check_entry(entry, f"parameter {index}", faults)
    for number, group in enumerate(content["param_groups"]):
        _check_group(group, f"group {number}", faults)
    faults.raise_if_any(f"{label} is not that of Adam or AdamW")


def _check_entry(entry: Any, place: str, faults: Faults) -> None:
    if not isinstance(entry, Mapping):
        faults.add(f"{place} has a state of its own kind", "have states of their own kind")
        return
    missing = [key for key in ENTRY if key not in entry]
    extra = [str(key) for key, value in entry.items() if key not in ENTRY and value is not None]
    if missing:
        faults.add(f"{place} has no {', '.join(missing)}", "lack what Adam keeps")
    if extra:
        faults.add(f"{place} has {some_of(extra)}, which is not Adam's", "have what is not Adam's")


def _check_group(group: Mapping[str, Any], place: str, faults: Faults) -> None:
    for key in ("amsgrad", "maximize"):
        asked = is_array(group.get(key)) or bool(group.get(key))
        faults.require(not asked, f"{place} has {key}, which is not carried")
    for key, why in OTHER_MOMENTS.items():
        faults.require(group.get(key) is None, f"{place} has {key}, which is not Adam's: {why}")
    summed = group.get("grad_averaging") is False
    faults.require(not summed, f"{place} has grad_averaging False: exp_avg is no mean, as Adam's")


def _check_not_adafactor(content: Mapping[str, Any], label: str) -> None:
    """A UserError that names Adafactor where entries are those of torch's or transformers'."""
    entries = [entry for entry in content["state"].values() if isinstance(entry, Mapping)]
    mark = next((key for key in ADAFACTOR for entry in entries if key in entry), None)
    if mark is not None:
        raise UserError(
            f"{label} is that of Adafactor (it keeps {mark}), and only moments of Adam and AdamW "
            "are carried; adafactor_to_optax of convert makes optax's state of torch's"
        )


def resembling(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Notes of what in the groups of an optimizer says that it may not be Adam or AdamW."""
    strange = [key for group in groups for key, value in group.items() if _is_strange(key, value)]
    notes = [RESEMBLES.format(some_of(list(dict.fromkeys(strange))))] if strange else []
    radam = any("decoupled_weight_decay" in g and "amsgrad" not in g for g in groups)
    return [*notes, RADAM] if radam else notes


def _is_strange(key: str, value: Any) -> bool:
    """Whether a setting is none of Adam's, and is not turned off; or turns off what Adam does."""
    if key in BIAS_CORRECTION:
        return value is False or value == 0
    return key not in SETTINGS and value not in (None, False, "")
