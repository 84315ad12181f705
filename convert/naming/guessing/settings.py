"""What no shape shows: the settings that a proposed table begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer_spec import UserError
from transformer_spec.config import ACTIVATIONS, NORMS, SINUSOID_FREQUENCIES, SINUSOID_LAYOUTS

LEARNED, FROZEN, SINUSOIDAL, NONE = "learned", "frozen", "sinusoidal", "none"
HEADS = (8, 4, 16, 2, 1)
USUAL_HEAD, USUAL_LENGTH = 64, 512
# Settings that seldom have another value: they stand in no proposed table, and may be tried.
SELDOM: Mapping[str, tuple[Any, ...]] = {
    "position_offset": (0, 1, 2),
    "positions_skip_padding": (False, True),
}


@dataclass(frozen=True)
class Facts:
    """What is known of the model: widths, and what tensors are there.

    ``heads_dim`` is that of all heads together, ``heads`` where a shape has them apart,
    ``positions`` how each half's are stored (None: not at all), ``lengths`` their rows.
    """

    width: int
    heads_dim: int
    heads: int | None
    positions: Mapping[str, str | None]
    lengths: tuple[int, ...]
    final_norm: bool
    norm_leaf: str
    norm_bias: bool
    flax: bool
    fused: bool
    tables: Mapping[str, int]


@dataclass(frozen=True)
class Setting:
    """A setting that stands in the table, the other values that it may have, and a remark."""

    value: Any
    others: tuple[Any, ...] = ()
    remark: str = ""


def settings_of(facts: Facts, given: Mapping[str, Any]) -> dict[str, Setting]:
    """The settings that are given, and the most usual value of each that nothing shows.

    Heads that the tensors cannot have are a UserError.
    """
    _check_heads(facts, given.get("num_heads"))
    found = _norms(facts) | _computation(facts) | _positions(facts, given) | _ties(facts)
    found |= {"pad_id": Setting(0, (1, 2, 3))} | _heads(facts)
    told = {name: Setting(value, remark="as given") for name, value in given.items()}
    return found | told


def _norms(facts: Facts) -> dict[str, Setting]:
    post = not facts.final_norm or facts.fused
    own = facts.norm_leaf not in ("weight", "scale", "gamma")
    kinds = ("std" if own else "layer", *NORMS) if facts.norm_bias else ("layer", "rms", "std")
    epsilons = (1e-6, 1e-5, 1e-12) if own or facts.flax else (1e-5, 1e-6, 1e-12)
    return {
        "norm_position": Setting("post" if post else "pre", ("pre" if post else "post",)),
        "norm": _setting(*kinds),
        "norm_epsilon": _setting(*epsilons),
    }


def _computation(facts: Facts) -> dict[str, Setting]:
    scales: tuple[Any, ...] = ("1/sqrt(A)", 1.0)
    scales += ("1/sqrt(D)",) if facts.heads != 1 else ()
    return {
        "activation": _setting("relu", *ACTIVATIONS),
        "embedding_scale": _setting("sqrt(D)", 1.0),
        "attention_scale": _setting(*scales),
        "output_scale": _setting(1.0, "1/sqrt(D)"),
    }


def _positions(facts: Facts, given: Mapping[str, Any]) -> dict[str, Setting]:
    found = dict[str, Setting]()
    for half, stored in facts.positions.items():
        kind = stored if stored is not None else SINUSOIDAL
        remark = "" if stored is None else "as it is stored" if stored == FROZEN else "shown"
        others = (NONE,) if stored is None else ()
        found[f"{half}_positions"] = Setting(kind, others, remark)
    kinds = {given.get(name, one.value) for name, one in found.items()}
    if SINUSOIDAL in kinds:
        found["sinusoid_layout"] = _setting(*SINUSOID_LAYOUTS)
        found["sinusoid_frequency"] = _setting(*SINUSOID_FREQUENCIES)
    if not facts.lengths:
        found["max_length"] = Setting(USUAL_LENGTH, remark="guess: the longest sequence in tokens")
    shown = [name for name, one in found.items() if one.remark == "shown"]
    return {name: one for name, one in found.items() if name not in shown}


def _ties(facts: Facts) -> dict[str, Setting]:
    """Which of the three tables are one, by which are there: source, target, output."""
    there = facts.tables.keys()
    if len(there) == 3:
        return {}
    if "output" in there:
        return {"tied_embeddings": Setting("source_target", remark="shown: one table for both")}
    tied = "target_output" if len(there) == 2 else "all"
    return {"tied_embeddings": Setting(tied, remark="shown: there is no table of the output's own")}


def _check_heads(facts: Facts, told: int | None) -> None:
    if told is None or told in (facts.heads, *(_divisors(facts) if facts.heads is None else ())):
        return
    allowed = "a divisor of it" if facts.heads is None else f"{facts.heads}, as the tensors show"
    raise UserError(
        f"num_heads is given as {told}, and the attention is {facts.heads_dim} wide; give {allowed}"
    )


def _divisors(facts: Facts) -> list[int]:
    return [n for n in range(1, facts.heads_dim + 1) if facts.heads_dim % n == 0]


def _heads(facts: Facts) -> dict[str, Setting]:
    if facts.heads is not None:
        return {}
    divisors = _divisors(facts)
    likely = [facts.heads_dim // USUAL_HEAD] if facts.heads_dim % USUAL_HEAD == 0 else []
    usual = next(n for n in (*likely, *HEADS) if n in divisors)
    return {"num_heads": _setting(usual, *divisors)}


def _setting(*values: Any) -> Setting:
    return Setting(values[0], tuple(v for v in dict.fromkeys(values) if v != values[0]))
