"""Token ids to compare two models on: generated ones that cover what bites, or the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training_recipe.corpora.text_files import read_lines
from transformer_spec import Faults, TransformerConfig
from transformer_spec.positions import convolved

SHORT = 20
ROWS = 32
WHOLE_ROWS = [1, 2, 5]  # of the generated short rows, where each has a whole source
PADDING = ANYWHERE, BEHIND = "anywhere", "behind"  # where generated rows have padding
ONLY_PADDING = "is padding alone, of which nothing is compared; give it tokens or leave it out"
FORM = '{"source": [5, 9, 0], "target": [7, 4, 0]}'
UNFIT = "lines hold what the model does not take"
Pair = tuple[list[int], list[int]]


class Ids(NamedTuple):
    """Source (B, S) and target (B, T), int64; the target begins with what starts the decoder.

    Where a model reads features, the source is (B, W, M) float32.
    """

    source: np.ndarray
    target: np.ndarray

    def real(self, config: TransformerConfig) -> tuple[np.ndarray, np.ndarray]:
        """Where both hold tokens and no padding; the decoder's start counts whatever it is."""
        target = self.target != config.pad_id
        if config.decoder_start_id == config.pad_id:
            target[:, 0] = True
        if config.feature_dim:
            return np.ones((len(self.source), convolved(self.source.shape[1])), bool), target
        return self.source != config.pad_id, target

    def behind_padding(self, config: TransformerConfig) -> np.ndarray:
        """Where a target row has had padding already."""
        return np.logical_or.accumulate(~self.real(config)[1], axis=1)

    def for_loss(self, config: TransformerConfig) -> tuple[np.ndarray, np.ndarray, int]:
        """Target as given to the decoder, what it should give, and how many of these count.

        A token after padding does not count: nothing is said of what a padded position gives.
        """
        given, wanted = self.target[:, :-1].copy(), self.target[:, 1:].copy()
        real = Ids(self.source, given).real(config)[1]
        wanted[~real] = config.pad_id
        return given, wanted, int((wanted != config.pad_id).sum())


def generated(
    config: TransformerConfig,
    longest: int | None = None,
    seed: int = 0,
    padding: str = ANYWHERE,
    whole: bool = False,
) -> list[Ids]:
    """Two batches: six short rows, and one row of the longest length (or ``longest``, if shorter).

    The rows: not padded; padded on the right; on the left; one token; one source token under a full
    target; both ends of both vocabularies. Of these source and target never have the same length.
    With padding ``behind`` the third has it on the right as well.

    A model that reads features is given normal numbers. With ``whole`` there are always as many
    frames as it has positions for, and of the short rows the padded ones and the last.
    """
    draw = np.random.default_rng(seed)
    most = [config.max_source_length, config.max_length]
    source_length, length = most if longest is None else [min(longest, one) for one in most]
    S, T = min(SHORT, source_length), max(1, min(SHORT, length) - 3)
    if whole:
        S = source_length = config.max_source_length
    source = _sources(draw, (6, S), config)
    target = _tokens(draw, (6, T), config.target_vocab_size, config.pad_id)
    sizes = {"target": config.target_vocab_size, "source": config.source_vocab_size}
    for side in ("target",) if config.feature_dim else ("target", "source"):
        rows = target if side == "target" else source
        _pad(rows, config.pad_id, padding, first=int(side == "target"))
        row, size = rows[5], sizes[side]
        ends = [i for i in (0, 1, size - 2, size - 1) if 0 <= i < size and i != config.pad_id]
        row[-len(ends[: len(row)]) :] = ends[: len(row)]
    long = Ids(
        _sources(draw, (1, source_length), config),
        _tokens(draw, (1, length), config.target_vocab_size, config.pad_id),
    )
    kept = WHOLE_ROWS if whole else slice(None)
    batches = [Ids(source[kept], target[kept]), long]
    for batch in batches:
        batch.target[:, 0] = config.decoder_start_id
    return batches


def generated_targets(config: TransformerConfig, rows: int, seed: int = 0) -> np.ndarray:
    """Random targets (rows, T) without padding, for sources that are given."""
    shape = rows, min(SHORT, config.max_length)
    draw = np.random.default_rng(seed)
    target = _tokens(draw, shape, config.target_vocab_size, config.pad_id)
    target[:, 0] = config.decoder_start_id
    return target


def _pad(rows: np.ndarray, pad_id: int, padding: str, first: int) -> None:
    """Padding for generated rows, of which tokens before ``first`` stay."""
    third = max(1, rows.shape[1] // 3)
    rows[1, -third:] = pad_id
    if padding == BEHIND:
        rows[2, third:] = pad_id
    else:
        rows[2, first : first + third] = pad_id
    rows[3, 1:] = pad_id
    if not first:
        rows[4, 1:] = pad_id


def _sources(
    draw: np.random.Generator, shape: tuple[int, int], config: TransformerConfig
) -> np.ndarray:
    """Random tokens of so many positions, or features."""
    if not config.feature_dim:
        return _tokens(draw, shape, config.source_vocab_size, config.pad_id)
    rows, positions = shape
    return draw.normal(size=(rows, 2 * positions, config.feature_dim)).astype(np.float32)


def _tokens(
    draw: np.random.Generator, shape: tuple[int, int], size: int, pad_id: int
) -> np.ndarray:
    """Random tokens, none of them padding (where there are others)."""
    found = draw.integers(0, size, shape)
    found[found == pad_id] = (pad_id + 1) % size
    return found.astype(np.int64)


def read_ids(path: Path, config: TransformerConfig) -> list[Ids]:
    """Lines of ``{"source": [...], "target": [...]}``; the faulty ones are named at once.

    The target is taken as the decoder gets it, its start token included.
    """
    faults, pairs = Faults(), []
    lines = read_lines(str(path), faults) or []
    faults.raise_if_any("cannot read the ids")
    for number, line in enumerate(lines, 1):
        given = _sides_of(line)
        if isinstance(given, str):
            faults.add(f"line {number} {given}; it should look like {FORM}", "lines are not so")
            continue
        try:
            pairs.append(check_pair(*given, config))
        except ValueError as error:
            faults.add(f"line {number}: {error}", UNFIT)
    faults.require(bool(lines), "it is empty")
    faults.raise_if_any(f"{path} holds no ids for this model")
    return batches_of(pairs, config.pad_id)


def _sides_of(line: str) -> tuple[Any, Any] | str:
    """What a line of JSON gives as source and target, or what is wrong with it."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return "is no JSON" if line else "is empty"
    if not isinstance(content, dict):
        return f"holds no JSON object but a {type(content).__name__}"
    lacking = [repr(side) for side in ("source", "target") if side not in content]
    if lacking:
        return f"has no {' and no '.join(lacking)}"
    return content["source"], content["target"]


def batches_of(pairs: list[Pair], pad_id: int) -> list[Ids]:
    """Padded batches of a few pairs each, in their order."""
    groups = [pairs[k : k + ROWS] for k in range(0, len(pairs), ROWS)]
    return [
        Ids(*(_padded([p[side] for p in group], pad_id) for side in (0, 1))) for group in groups
    ]


def check_pair(source: Any, target: Any, config: TransformerConfig) -> Pair:
    """The pair; ValueError unless it is ids that the model can take, and something is compared."""
    pair = _checked(source, "source", config), _checked(target, "target", config)
    if only_padding(np.array([target]), config)[0]:
        raise ValueError(f"target {ONLY_PADDING}")
    return pair


def only_padding(target: np.ndarray, config: TransformerConfig) -> np.ndarray:
    """Which rows of targets (B, T) have no position that counts."""
    starts = config.decoder_start_id == config.pad_id
    return (target == config.pad_id).all(1) & (not starts)


def _checked(ids: Any, side: str, config: TransformerConfig) -> list[int]:
    size = getattr(config, f"{side}_vocab_size")
    if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
        raise ValueError(f"{side} is no list of ids")
    longest = config.max_source_length if side == "source" else config.max_length
    if len(ids) > longest:
        raise ValueError(f"{side} has {len(ids)} tokens; the model takes {longest}")
    wrong = [i for i in ids if not 0 <= i < size]
    if wrong:
        raise ValueError(f"{side} has {wrong[0]}; its vocabulary has {size} tokens")
    return ids


def _padded(rows: list[list[int]], pad_id: int) -> np.ndarray:
    result = np.full((len(rows), max(map(len, rows))), pad_id, np.int64)
    for row, ids in zip(result, rows, strict=True):
        row[: len(ids)] = ids
    return result
