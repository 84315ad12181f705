"""Token-budget batches in a few fixed shapes; their order is a function of seed and epoch alone."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from training_recipe.batching.shapes import Box, partition
from training_recipe.corpora.corpus import Example
from training_recipe.text.vocabulary import BOS_ID, PAD_ID, Frame, Vocabulary
from transformer_spec.errors import UserError

IdPair = tuple[list[int], list[int]]
Frames = tuple[Frame, Frame]
TextPair = tuple[str, str]
Vary = Callable[[int], Sequence[IdPair]]
VARIANTS = 3
USUAL = Frame(), Frame()


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that are computed together; rows beyond the examples are all padding.

    Epochs count from 1, ``index`` counts the batches of an epoch from 0.
    """

    source: np.ndarray  # (B, S) int32: ids in their frame, padding
    target_in: np.ndarray  # (B, T) int32: start id, target_out without its last, padding
    target_out: np.ndarray  # (B, T) int32: ids in their frame, padding
    epoch: int = 1
    index: int = 0
    pad_id: int = PAD_ID

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source, decoder input and targets."""
        return self.source, self.target_in, self.target_out

    @property
    def tokens(self) -> int:
        """Number of target tokens to predict, each row's eos included."""
        return int(np.count_nonzero(self.target_out != self.pad_id))

    @property
    def source_tokens(self) -> int:
        """Number of source tokens, each row's eos included."""
        return int(np.count_nonzero(self.source != self.pad_id))


def text_pairs(examples: Iterable[Example]) -> list[TextPair]:
    """One pair of texts for each example and each of its targets."""
    return [(example.source, text) for example in examples for text in example.targets]


def encode_pairs(
    examples: Iterable[Example], source: Vocabulary, target: Vocabulary
) -> list[IdPair]:
    """The ids of ``text_pairs``, without what stands around them."""
    pairs = []
    for example in examples:
        ids = source.encode(example.source)
        pairs += [(ids, target.encode(text)) for text in example.targets]
    return pairs


def fits(pair: IdPair, max_length: int, frames: Frames = USUAL) -> bool:
    """Whether both sides are of ``max_length`` tokens at most, their frames included."""
    return all(len(ids) + frame.size <= max_length for ids, frame in zip(pair, frames, strict=True))


def drop_long(
    pairs: Sequence[IdPair],
    max_length: int,
    what: str = "training pairs",
    frames: Frames = USUAL,
) -> tuple[list[int], list[str]]:
    """Which pairs fit into ``max_length`` tokens a side, in their frames, and a note on the rest.

    Raises UserError where none fits.
    """
    kept = [number for number, pair in enumerate(pairs) if fits(pair, max_length, frames)]
    dropped = len(pairs) - len(kept)
    if not dropped:
        return kept, []
    note = f"{dropped:,} of {len(pairs):,} {what} are longer than max_length {max_length}"
    if not kept:
        raise UserError(f"{note}: none is left; raise max_length or use a coarser vocabulary")
    return kept, [f"{note} and are left out"]


def encode_sources(
    sources: Sequence[Sequence[int]],
    *,
    rows: int | None = None,
    length: int | None = None,
    pad_id: int = PAD_ID,
    frame: Frame = USUAL[0],
) -> np.ndarray:
    """Model input (B, S) int32 of the ids of texts: in their frame, then padding.

    ``rows`` and ``length`` are at least what the sources need (None: exactly that); ValueError
    otherwise, as nothing is cut.
    """
    texts = _Sequences(sources, frame)
    longest = int(texts.lengths.max(initial=1))
    rows, length = rows or len(sources), length or longest
    if rows < len(sources) or length < longest:
        needed = f"({len(sources)}, {longest})"
        raise ValueError(f"sources of shape {needed} in all do not fit into ({rows}, {length})")
    return texts.padded(np.arange(len(sources)), rows, length, pad_id)


class _Sequences:
    """Many id lists, each in its frame, in one flat array."""

    def __init__(self, ids: Sequence[Sequence[int]], frame: Frame) -> None:
        self.lengths = np.fromiter((len(row) + frame.size for row in ids), np.int64, len(ids))
        self._starts = np.concatenate(([0], np.cumsum(self.lengths)[:-1])).astype(np.int64)
        flat = chain.from_iterable(chain(frame.before, row, frame.after) for row in ids)
        self._flat = np.fromiter(flat, np.int32, int(self.lengths.sum()))

    def padded(self, members: np.ndarray, rows: int, length: int, pad_id: int) -> np.ndarray:
        """The chosen lists as (rows, length) int32, padding on the right and below."""
        columns = np.arange(length)
        real = columns < self.lengths[members, None]
        result = np.full((rows, length), pad_id, np.int32)
        positions = (self._starts[members, None] + columns)[real]
        result[: len(members)][real] = self._flat[positions]
        return result


class BatchPlan:
    """All batches of all epochs; ``batch(number)`` depends on the arguments and number alone.

    ``pairs`` hold ids without their ``frames``, ``budget`` bounds rows x max(S, T) of a batch (a
    single longer pair still makes a batch of one row), ``max_shapes`` the number of shapes.
    ``vary(epoch)`` gives an epoch's own ids of the same pairs: those for which a pair's batch has
    room are taken.
    """

    def __init__(
        self,
        pairs: Sequence[IdPair],
        budget: int,
        max_shapes: int = 12,
        seed: int = 0,
        *,
        pad_id: int = PAD_ID,
        decoder_start_id: int = BOS_ID,
        frames: Frames = USUAL,
        vary: Vary | None = None,
    ) -> None:
        if not pairs:
            raise UserError("there are no pairs to make batches of")
        if min(budget, max_shapes) < 1 or seed < 0:
            raise ValueError(f"{budget=} and {max_shapes=} must be at least 1, {seed=} at least 0")
        self._pairs, self._vary, self._frames = pairs, vary, frames
        self._pad_id, self._start_id, self._seed = pad_id, decoder_start_id, seed
        source, target = self._planned_lengths()
        self._boxes = partition(source, target, budget, max_shapes)
        self._ids: tuple[int, tuple[_Sequences, _Sequences]] = (0, self._sequences(pairs))
        self._order: tuple[int, list[tuple[Box, np.ndarray]]] = (0, [])

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """The different (B, S, T) of the batches."""
        return list(dict.fromkeys(box.shape for box in self._boxes))

    @property
    def batches_per_epoch(self) -> int:
        return sum(box.batches for box in self._boxes)

    @property
    def fingerprint(self) -> str:
        """A hash of the first epoch's batches, in order: their shapes and their pairs."""
        digest = hashlib.sha256()
        for box, members in self._epoch_order(1):
            digest.update(repr(box.shape).encode())
            digest.update(members.astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def padding(self) -> float:
        """Share of padding in the entries of all batches, source and target together."""
        entries = sum(box.batches * box.rows * (box.source + box.target) for box in self._boxes)
        real = sum(int(side.lengths.sum()) for side in self._ids_of(1))
        return 1.0 - float(real) / entries

    def filling(self, multiple: int) -> float:
        """Share of rows of padding that are added where ``multiple`` divides all batches' rows."""
        added = sum(box.batches * (-box.rows % multiple) for box in self._boxes)
        return added / (added + sum(box.batches * box.rows for box in self._boxes))

    def batch(self, number: int) -> Batch:
        """One batch; batches count from 1 and run through epoch after epoch."""
        if number < 1:
            raise ValueError(f"batch {number} is not possible; batches count from 1")
        epoch, index = divmod(number - 1, self.batches_per_epoch)
        box, members = self._epoch_order(epoch + 1)[index]
        sources, targets = self._ids_of(epoch + 1)
        source = sources.padded(members, box.rows, box.source, self._pad_id)
        target = targets.padded(members, box.rows, box.target, self._pad_id)
        shifted = self._shift(target, targets.lengths[members])
        return Batch(source, shifted, target, epoch + 1, index, self._pad_id)

    def batches(self, step: int, count: int) -> list[Batch]:
        """The batches of one step of ``count`` batches; steps count from 1."""
        first = (step - 1) * count + 1
        return [self.batch(number) for number in range(first, first + count)]

    def _shift(self, target: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The decoder's input: the start id, then the target without its last id."""
        shifted = np.full_like(target, self._pad_id)
        examples = shifted[: len(lengths)]
        examples[:, 1:] = target[: len(lengths), :-1]
        examples[np.arange(target.shape[1]) >= lengths[:, None]] = self._pad_id
        examples[:, 0] = self._start_id
        return shifted

    def _sequences(self, pairs: Sequence[IdPair]) -> tuple[_Sequences, _Sequences]:
        sides = ([pair[side] for pair in pairs] for side in (0, 1))
        source, target = map(_Sequences, sides, self._frames)
        return source, target

    def _planned_lengths(self) -> list[np.ndarray]:
        """Source and target lengths to make room for: the longest of a few epochs'."""
        epochs = range(-VARIANTS, 0) if self._vary else ()
        variants = [self._pairs, *(self._vary(epoch) for epoch in epochs if self._vary)]
        lengths = [[side.lengths for side in self._sequences(pairs)] for pairs in variants]
        return [np.max(side, axis=0) for side in zip(*lengths, strict=True)]

    def _ids_of(self, epoch: int) -> tuple[_Sequences, _Sequences]:
        """An epoch's ids; where they are too long for their box, those of ``pairs``."""
        if self._vary and self._ids[0] != epoch:
            drawn = list(self._vary(epoch))
            one, other = (frame.size for frame in self._frames)
            for box in self._boxes:
                for member in box.members:
                    source, target = drawn[member]
                    if len(source) + one > box.source or len(target) + other > box.target:
                        drawn[member] = self._pairs[member]
            self._ids = (epoch, self._sequences(drawn))
        return self._ids[1]

    def _epoch_order(self, epoch: int) -> list[tuple[Box, np.ndarray]]:
        if self._order[0] != epoch:
            self._order = (epoch, self._shuffled(epoch))
        return self._order[1]

    def _shuffled(self, epoch: int) -> list[tuple[Box, np.ndarray]]:
        # Raw bits of a named generator, sorted: NumPy may change how `permutation` uses them.
        bits = np.random.PCG64([self._seed, epoch])
        batches = []
        for box in self._boxes:
            members = box.members[np.argsort(bits.random_raw(len(box.members)), kind="stable")]
            batches += [(box, part) for part in np.array_split(members, box.batches)]
        return [batches[i] for i in np.argsort(bits.random_raw(len(batches)), kind="stable")]
