"""The search for the table of names under which a checkpoint is the function that its module is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from convert.naming.proposal import Proposal
from convert.naming.settings import usual_ids
from convert.naming.table import HALVES
from parity.comparison.comparison import compare_sides
from parity.comparison.report import Report
from parity.comparison.settings import Settings
from parity.forward.ids import ANYWHERE, PADDING, Ids, generated
from parity.forward.measures import mask_of
from parity.forward.probabilities import check_logits_alone
from parity.forward.substeps import LOGITS
from parity.naming.candidates import Candidate, TwinSide
from parity.naming.probes import LONG, Probes, distance
from parity.naming.roles import RoleFinder, Roles
from parity.naming.stages import EXACT, Departure, Stages
from parity.naming.subject import Subject
from parity.naming.wording import kept_positions, proposal_of
from parity.sides.own_code import same_twice
from parity.sides.side import Side, Trace
from parity.sides.twins import TorchTwin
from transformer_spec import Faults, UserError

# The candidate, where tensors are, its twin, and where padding may stand.
Searched = tuple[Candidate, Roles, TwinSide, str]
LONGEST, JUDGED = 12, 200
# Logits of sinusoids that a module computes in float32 are off by less, relative to the largest.
FLOAT32_SINUSOIDS = 1e-4
SEEDS = (0, 1)
PADS = (0, 1, 2, 3)
UNHEARD = "changes nothing that the module computes"
# Tables whose numbers are the same in the checkpoint: which tie that is.
TIES = (
    ("all", ("encoder.embedding", "decoder.embedding", "decoder.finalFc")),
    ("target_output", ("decoder.embedding", "decoder.finalFc")),
    ("source_target", ("encoder.embedding", "decoder.embedding")),
)
# Ties that one of them includes.
WITHIN = {"all": ("target_output", "source_target"), "target_output": (), "source_target": ()}


@dataclass(frozen=True)
class Found:
    """The table that was found, how long it took, and the comparison that judged it.

    ``evaluations`` counts forward passes of both models; ``flags`` are what a conversion is told
    that keeps what the module computes with.
    """

    proposal: Proposal
    seconds: float
    evaluations: int
    report: Report
    flags: str = ""


@dataclass
class SubjectSide(Side):
    """The user's module with a checkpoint's weights, as a side of a comparison."""

    function: Callable[[Ids], np.ndarray] = lambda ids: ids.target

    def trace(self, ids: Ids, precision: str) -> Trace:
        return {LOGITS: self.function(ids)} if precision == "float64" else {}


def search(
    tensors: Mapping[str, np.ndarray],
    subject: Subject,
    label: str,
    heads: int | None = None,
    pad_id: int | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Found:
    """The table under which ``tensors`` are the function that ``subject`` is.

    Told ``heads`` and ``pad_id`` are not searched. A module that is no such model is a UserError
    that says from which sub-step on; tensors that are not the module's are one that names them.
    """
    began = time.monotonic()
    check_tensors(tensors, subject, label)
    check_reads_tokens(subject)
    _check_twice(subject)
    candidate, roles, twin, padding = _searched(subject, heads, pad_id, say)
    say("judging")
    report = judged(candidate, tensors, subject, twin, padding)
    if not report.same:
        raise Departure(
            f"{label}: the same function with random weights, and not with those of the "
            f"checkpoint: {report.verdict}"
        )
    say("judging long texts")
    _check_long(candidate, tensors, subject, twin, padding)
    tied = _tied(candidate, roles, tensors, subject)
    seconds, evaluations = time.monotonic() - began, subject.evaluations + twin.evaluations
    told = subject.given, seconds, evaluations, padding, _apart(subject, roles)
    proposal = proposal_of(tied, roles, twin, tensors, told)
    flags = kept_positions(tied, proposal.content)
    return Found(proposal, seconds, evaluations, report, flags)


def check_tensors(tensors: Mapping[str, np.ndarray], subject: Subject, label: str) -> None:
    """The checkpoint must hold the module's tensors."""
    faults = Faults()
    for name in sorted(subject.shapes.keys() - tensors.keys()):
        faults.add(f"{name} is in the module and not in the file", "are in the module alone")
    for name in sorted(tensors.keys() - subject.shapes.keys()):
        faults.add(f"{name} is in the file and not in the module", "are in the file alone")
    for name in sorted(subject.shapes.keys() & tensors.keys()):
        one, other = list(tensors[name].shape), list(subject.shapes[name])
        told = f"{name} is {one} in the file and {other} in the module"
        if one != other:
            faults.add(told, "have other shapes in the file and in the module")
    faults.raise_if_any(f"{label} is not the state of {subject.given}")


def check_reads_tokens(subject: Subject) -> None:
    """A module with Whisper's second convolution reads features, for which nothing is searched."""
    for name, shape in subject.shapes.items():
        if len(shape) == 3 and shape in {(shape[0],) * 2 + (3,), (3,) + (shape[2],) * 2}:
            raise UserError(
                f"{subject.given} reads features: {name} {list(shape)} is a convolution; names are "
                "searched for modules that read tokens. Convert it as one of the families of "
                "python -m convert, and compare with module:FILE.py:FUNCTION"
            )


def _searched(
    subject: Subject, heads: int | None, pad_id: int | None, say: Callable[[str], object]
) -> Searched:
    """The candidate that agrees at every stage; random numbers that hide something are redrawn."""
    before: Roles | None = None
    failed: UserError | None = None
    for seed in SEEDS:
        probes = Probes(subject, seed, () if pad_id is None else (pad_id,))
        try:
            say("probing")
            roles = RoleFinder(probes).find()
            if failed is not None and roles == before:
                break
            before = roles
            say("searching")
            return _settled(Stages(probes, roles, _twin(roles), heads), pad_id)
        except UserError as error:
            failed = failed or error
    assert failed is not None
    raise failed


def _twin(roles: Roles) -> TwinSide:
    return TwinSide(dict.fromkeys(roles.unused, UNHEARD))


def _settled(stages: Stages, pad_id: int | None) -> Searched:
    stages.run()
    _check_order(stages)
    candidate, padding = _padding(stages, pad_id)
    return candidate, stages.roles, stages.twin, padding


def _check_order(stages: Stages) -> None:
    """Layers with numbers of their own: they run in the order of their names."""
    probes, twin, ids = stages.probes, stages.twin, stages.probes.ids(LONG)
    weights, turned = probes.layered_weights(), probes.layered_weights(turned=True)
    wanted = probes.subject.logits(weights, ids)

    def agree(given: Mapping[str, np.ndarray], key: str) -> list[Candidate]:
        found = {c: twin.logits(c, given, key, ids) for c in stages.candidates}
        return [c for c, logits in found.items() if distance(wanted, logits) <= EXACT]

    found = agree(weights, "layers")
    if not found:
        told = "not in the order of their numbers"
        if agree(turned, "turned"):
            told = "from the last number to the first, which no table says: rename them"
        raise Departure(f"{probes.subject.given}: its layers run {told}")
    stages.candidates = found


def _padding(stages: Stages, pad_id: int | None) -> tuple[Candidate, str]:
    """The candidate whose padding token is masked as theirs is, and where padding may stand.

    A decoder with a look-ahead mask alone sees padding that stands in front of tokens.
    """
    weights = stages.probes.layered_weights()
    tried = [
        candidate.settled(pad_id=pad, **usual_ids({"pad_id": pad}), positions_skip_padding=skip)
        for candidate in stages.candidates
        for skip in (False, True)
        for pad in (PADS if pad_id is None else (pad_id,))
    ]
    sizes = list[float]()
    for padding in PADDING:
        sizes = [_padded_distance(stages, candidate, weights, padding) for candidate in tried]
        if min(sizes) <= EXACT:
            return tried[int(np.argmin(sizes))], padding
    raise stages.departure("what padding changes", len(tried), min(sizes))


def _padded_distance(
    stages: Stages, candidate: Candidate, weights: Mapping[str, np.ndarray], padding: str
) -> float:
    try:
        config, worst = stages.twin.config(candidate, weights), 0.0
        for ids in generated(config, min(LONGEST, config.max_length), padding=padding):
            theirs = stages.probes.subject.logits(weights, ids)
            ours = stages.twin.logits(candidate, weights, "layers", ids)
            mask = mask_of(LOGITS, ids, config)
            worst = max(worst, distance(theirs[mask], ours[mask]))
        return worst
    except UserError:
        return float("inf")


def _check_twice(subject: Subject) -> None:
    """The same weights and ids must give the same logits, and no probabilities."""
    ids = Ids(np.ones((1, 4), np.int64), np.ones((1, 3), np.int64))
    one, other = (subject.logits(subject.held, ids) for _ in range(2))
    same_twice(subject.given, one, other)
    check_logits_alone(subject.given, one)


def _check_long(
    candidate: Candidate,
    tensors: Mapping[str, np.ndarray],
    subject: Subject,
    twin: TwinSide,
    padding: str,
) -> None:
    """Texts longer than those of the search, where a window or a bend of positions shows."""
    report = judged(candidate, tensors, subject, twin, padding, JUDGED)
    computed = "sinusoidal" in {candidate.values[f"{half}_positions"] for half in HALVES}
    near = all(row.float64 <= FLOAT32_SINUSOIDS * row.scale for row in report.rows)
    if not report.same and not (computed and near):
        raise Departure(
            f"{subject.given}: the same function up to {LONGEST} tokens, and not with more: "
            f"{report.verdict}"
        )


def judged(
    candidate: Candidate,
    tensors: Mapping[str, np.ndarray],
    subject: Subject,
    twin: TwinSide,
    padding: str = ANYWHERE,
    longest: int = LONGEST,
) -> Report:
    """The usual comparison, with the checkpoint's own weights."""
    wide = {name: array.astype(np.float64) for name, array in tensors.items()}
    config = twin.config(candidate, wide)
    theirs = SubjectSide(subject.given, "the module", "torch", config)
    theirs.function = lambda ids: subject.logits(wide, ids)
    ours = TorchTwin("the table", "the twin", "torch", config, twin.canonical(candidate, wide))
    settings = Settings((), gradients=False, explain=False, longest=longest, padding=padding)
    return compare_sides(theirs, ours, settings)


def _apart(subject: Subject, roles: Roles) -> list[str]:
    """Weights that are one in the module and several here; what tables are is in the config."""
    one = [g for g in subject.shared if not {*g} & roles.tables.keys()]
    return [" and ".join(group) for group in one if not {*group} <= {*roles.unused}]


def _tied(
    candidate: Candidate, roles: Roles, tensors: Mapping[str, np.ndarray], subject: Subject
) -> Candidate:
    """Tables of the same numbers in the checkpoint are tied, unless the module has several."""
    shared = candidate.values["tied_embeddings"]
    for tie, names in TIES:
        tables = [text for text in map(roles.table, names) if text is not None]
        arrays = [tensors[text] for text in tables]
        if len(tables) < len(names) or len({*tables}) == 1 or shared not in ("none", *WITHIN[tie]):
            continue
        same = all(np.array_equal(a, arrays[0]) for a in arrays[1:])
        if same and not subject.has_apart(tables):
            return candidate.settled(tied_embeddings=tie)
    return candidate
