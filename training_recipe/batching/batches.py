"""Token-budget batches in a few fixed shapes; their order is a function of seed and epoch alone."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training_recipe.batching.ids import IdPair, Ids, Pairs, TextPair, either
from training_recipe.batching.shapes import Box, entries, partition
from training_recipe.corpora.corpus import Example
from training_recipe.text.vocabulary import BOS_ID, PAD_ID, Frame, Vocabulary
from transformer_spec.errors import UserError

Frames = tuple[Frame, Frame]
Vary = Callable[[int], Iterable[IdPair]]
VARIANTS = 3
USUAL = Frame(), Frame()


class Sounds(Protocol):
    """Sources that are no texts: a list of ids is the number of one."""

    @property
    def positions(self) -> int:
        """How many positions a model has each of them at."""
        ...

    def features(self, numbers: Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
        """(rows, W, M) float32 of some of them, zeros below."""
        ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples that are computed together; rows beyond the examples are all padding.

    Epochs count from 1, ``index`` counts the batches of an epoch from 0.
    """

    source: np.ndarray  # (B, S) int32: ids in their frame, padding; or features (B, W, M) float32
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
        """Number of source tokens, each row's eos included; of features, their frames."""
        if self.source.ndim == 3:
            return int((self.target_out != self.pad_id).any(1).sum()) * self.source.shape[1]
        return int(np.count_nonzero(self.source != self.pad_id))


def text_pairs(examples: Iterable[Example]) -> Iterator[TextPair]:
    """One pair of texts for each example and each of its targets."""
    return ((example.source, text) for example in examples for text in example.targets)


def encode_pairs(
    examples: Iterable[Example], source: Vocabulary, target: Vocabulary
) -> Iterator[IdPair]:
    """The ids of ``text_pairs``, without what stands around them."""
    for example in examples:
        ids = source.encode(example.source)
        for text in example.targets:
            yield ids, target.encode(text)


def longer(
    pairs: Pairs, source: int | np.ndarray, target: int | np.ndarray, frames: Frames = USUAL
) -> np.ndarray:
    """(N,) of bool: where a side, its frame included, is of more tokens than it may have."""
    sides = zip(pairs.sides, frames, (source, target), strict=True)
    one, other = (ids.lengths + frame.size > most for ids, frame, most in sides)
    return one | other


def drop_long(
    pairs: Iterable[IdPair],
    max_length: int | tuple[int, int],
    what: str = "training pairs",
    frames: Frames = USUAL,
) -> tuple[Pairs, np.ndarray, list[str]]:
    """The pairs that fit into ``max_length`` tokens a side, or each into its own, in their frames.

    The second value says of every pair whether it does, (N,) of bool; the last is a note on the
    rest. Raises UserError where none fits.
    """
    held = Pairs.of(pairs)
    source, target = max_length if isinstance(max_length, tuple) else (max_length, max_length)
    fits = ~longer(held, source, target, frames)
    kept, dropped = int(fits.sum()), int((~fits).sum())
    if not dropped:
        return held, fits, []
    lengths = f"max_length {target}"
    lengths += f" or max_source_length {source}" if source != target else ""
    note = f"{dropped:,} of {len(held):,} {what} are longer than {lengths}"
    if not kept:
        raise UserError(f"{note}: none is left; raise max_length or use a coarser vocabulary")
    return held.chosen(fits), fits, [f"{note} and are left out"]


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
    texts = Ids.of(sources)
    longest = int(texts.lengths.max(initial=1 - frame.size)) + frame.size
    rows, length = rows or len(sources), length or longest
    if rows < len(sources) or length < longest:
        needed = f"({len(sources)}, {longest})"
        raise ValueError(f"sources of shape {needed} in all do not fit into ({rows}, {length})")
    return texts.padded(np.arange(len(sources)), rows, length, pad_id, frame)[0]


class BatchPlan:
    """All batches of all epochs; ``batch(number)`` depends on the arguments and number alone.

    ``pairs`` hold ids without their ``frames``, ``budget`` bounds rows x max(S, T) of a batch (a
    single longer pair still makes a batch of one row), ``max_shapes`` the number of shapes.
    ``vary(epoch)`` gives an epoch's own ids of the same pairs: those for which a pair's batch has
    room are taken. With ``sounds`` the ids of a source are the number of one.
    """

    def __init__(
        self,
        pairs: Iterable[IdPair],
        budget: int,
        max_shapes: int = 12,
        seed: int = 0,
        *,
        pad_id: int = PAD_ID,
        decoder_start_id: int = BOS_ID,
        frames: Frames = USUAL,
        vary: Vary | None = None,
        sounds: Sounds | None = None,
    ) -> None:
        held = Pairs.of(pairs)
        if not len(held):
            raise UserError("there are no pairs to make batches of")
        if min(budget, max_shapes) < 1 or seed < 0:
            raise ValueError(f"{budget=} and {max_shapes=} must be at least 1, {seed=} at least 0")
        self._pairs, self._vary, self._frames, self._sounds = held, vary, frames, sounds
        self._pad_id, self._start_id, self._seed = pad_id, decoder_start_id, seed
        source, target = self._planned_lengths()
        self._boxes = partition(source, target, budget, max_shapes)
        self._ids: tuple[int, Pairs] = (0, held)
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
        real = sum(int(lengths.sum()) for lengths in self._lengths(self._ids_of(1)))
        return 1.0 - float(real) / entries(self._boxes)

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
        ids, other = self._ids_of(epoch + 1), self._frames[1]
        source = self._sources(ids.source, members, box)
        target, lengths = ids.target.padded(members, box.rows, box.target, self._pad_id, other)
        shifted = self._shift(target, lengths)
        return Batch(source, shifted, target, epoch + 1, index, self._pad_id)

    def batches(self, step: int, count: int) -> list[Batch]:
        """The batches of one step of ``count`` batches; steps count from 1."""
        first = (step - 1) * count + 1
        return [self.batch(number) for number in range(first, first + count)]

    def _sources(self, ids: Ids, members: np.ndarray, box: Box) -> np.ndarray:
        if self._sounds is not None:
            return self._sounds.features(ids.flat[ids.bounds[members]], box.rows)
        return ids.padded(members, box.rows, box.source, self._pad_id, self._frames[0])[0]

    def _shift(self, target: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The decoder's input: the start id, then the target without its last id."""
        shifted = np.full_like(target, self._pad_id)
        examples = shifted[: len(lengths)]
        examples[:, 1:] = target[: len(lengths), :-1]
        examples[np.arange(target.shape[1]) >= lengths[:, None]] = self._pad_id
        examples[:, 0] = self._start_id
        return shifted

    def _planned_lengths(self) -> list[np.ndarray]:
        """Source and target lengths to make room for: the longest of a few epochs'."""
        epochs = range(-VARIANTS, 0) if self._vary else ()
        longest = self._lengths(self._pairs)
        for epoch in epochs:
            lengths = self._lengths(self._drawn(epoch))
            longest = [np.maximum(one, other) for one, other in zip(longest, lengths, strict=True)]
        return longest

    def _lengths(self, pairs: Pairs) -> list[np.ndarray]:
        sides = zip(pairs.sides, self._frames, strict=True)
        source, target = (ids.lengths + frame.size for ids, frame in sides)
        return [source if self._sounds is None else source * self._sounds.positions, target]

    def _drawn(self, epoch: int) -> Pairs:
        return Pairs.of(self._vary(epoch)) if self._vary else self._pairs

    def _ids_of(self, epoch: int) -> Pairs:
        """An epoch's ids; where they are too long for their box, those of ``pairs``."""
        if self._vary and self._ids[0] != epoch:
            room = np.zeros((2, len(self._pairs)), np.int64)
            for box in self._boxes:
                room[:, box.members] = [[box.source], [box.target]]
            self._ids = (0, self._pairs)  # the last epoch's ids make room for the new ones
            drawn = self._drawn(epoch)
            too_long = longer(drawn, room[0], room[1], self._frames)
            self._ids = (epoch, either(drawn, self._pairs, too_long))
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
