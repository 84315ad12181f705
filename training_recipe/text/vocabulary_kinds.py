"""The kinds of vocabulary: characters, whitespace words, sentencepiece pieces."""

import hashlib
import io
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from training_recipe.text.bpe_dropout import BpeDropout
from training_recipe.text.frames import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Frame
from transformer_spec.errors import UserError

FORMAT_VERSION = 1
SPECIAL_PIECES = ("<pad>", "<unk>", "<s>", "</s>")

# Undecodable bytes of a command line arrive as lone surrogates, which UTF-8 cannot carry. They must
# stay visible as unknown: sentencepiece's normalisation would turn U+FFFD into a space.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
NO_CHARACTER = "\uffff"

Side = Literal["source", "target"]


def without_surrogates(text: str, stand_in: str = NO_CHARACTER) -> str:
    """The text with a character that no vocabulary has for every lone surrogate."""
    return LONE_SURROGATE.sub(stand_in, text)


class Vocabulary(ABC):
    """Text to ids and back.

    pad, unk, bos and eos are ids 0, 1, 2 and 3 in a vocabulary that was built here, and those of
    its own library in one that came with a model. ``frame`` is what stands around the ids of a
    text, ``start_id`` what the decoder begins with where the language decides it. ``languages``
    are the ids of the languages that a model has by their codes; ``language`` is the one spoken.
    """

    kind: ClassVar[str]
    pad_id: int = PAD_ID
    unk_id: int = UNK_ID
    bos_id: int = BOS_ID
    eos_id: int = EOS_ID
    start_id: int | None = None
    languages: Mapping[str, int] = {}
    language: str | None = None
    begins_with_target = False  # whether what language it is follows from that of the output

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of ids, the four special ones included."""

    def __len__(self) -> int:
        return self.size

    @property
    def frame(self) -> Frame:
        """What a model reads or writes around the ids of a text."""
        return Frame((), (self.eos_id,))

    def speaking(self, code: str) -> Self:
        """The same vocabulary in a language; a code that the model does not have is a UserError."""
        raise UserError(f"language {code!r} was given, and the model has no languages to choose")

    def special_names_in(self, text: str) -> list[str]:
        """Names of special tokens that are written in a text, where they are read as text."""
        return []

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, without bos and eos; what the vocabulary lacks becomes ``unk_id``."""

    def sample(self, texts: Iterable[str], rate: float, seed: int) -> list[list[int]]:
        """Ids of texts, cut at random where the kind can: the same for the same seed and texts."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def token(self, index: int) -> str:
        """The piece of an id as the vocabulary has it, the special ones by their names."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of some ids: stops at the first eos, skips pad and bos, shows unk visibly."""
        return self._join(list(self._up_to_eos(ids)))

    def _up_to_eos(self, ids: Iterable[int]) -> Iterator[int]:
        for index in map(int, ids):
            if index == self.eos_id:
                return
            if index not in (self.pad_id, self.bos_id):
                yield index

    @abstractmethod
    def _join(self, ids: list[int]) -> str:
        """Text of ids that are free of pad, bos and eos."""

    def count_unknown(self, text: str) -> int:
        """Number of pieces of a text that the vocabulary lacks."""
        return self.encode(text).count(self.unk_id)

    @abstractmethod
    def save(self, folder: Path, side: Side) -> None:
        """Write ``side.json`` (and what it names) into an existing folder."""


class _ListedVocabulary(Vocabulary):
    """A vocabulary that is a list of pieces, most frequent first."""

    separator: ClassVar[str]
    unknown: ClassVar[str]

    def __init__(self, pieces: Iterable[str]) -> None:
        self.pieces = tuple(pieces)
        first = len(SPECIAL_PIECES)
        self._ids = {piece: index for index, piece in enumerate(self.pieces, first)}
        self._texts = ("", self.unknown, "", "", *self.pieces)

    @classmethod
    def build(cls, texts: Iterable[str], size: int | None) -> Self:
        """The pieces of the texts, the most frequent ``size - 4`` of them where size is given."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(cls.split(text))
        pieces = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls(pieces if size is None else pieces[: size - len(SPECIAL_PIECES)])

    @staticmethod
    @abstractmethod
    def split(text: str) -> Iterable[str]:
        """The pieces of a text, in order."""

    @property
    def size(self) -> int:
        return len(self._texts)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(piece, UNK_ID) for piece in self.split(text)]

    def token(self, index: int) -> str:
        first = len(SPECIAL_PIECES)
        return SPECIAL_PIECES[index] if index < first else self.pieces[index - first]

    def _join(self, ids: list[int]) -> str:
        return self.separator.join(self._texts[index] for index in ids)

    def save(self, folder: Path, side: Side) -> None:
        content = {"special": SPECIAL_PIECES, "pieces": self.pieces}
        write_description(folder, side, self.kind, content)

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """The vocabulary of a parsed file; ValueError says what is wrong with it."""
        pieces = content.get("pieces")
        if not isinstance(pieces, list) or not pieces:
            raise ValueError("it has no list of pieces")
        for position, piece in enumerate(pieces):
            if not isinstance(piece, str) or list(cls.split(piece)) != [piece]:
                raise ValueError(f"entry {position} of its pieces, {piece!r}, is not one piece")
        if len(set(pieces)) < len(pieces):
            repeated = next(piece for piece, count in Counter(pieces).items() if count > 1)
            raise ValueError(f"the piece {repeated!r} is in it more than once")
        return cls(pieces)


class CharacterVocabulary(_ListedVocabulary):
    """Each Unicode code point is a piece; nothing is normalised, so known text returns exactly."""

    kind = "characters"
    separator = ""
    unknown = "\N{REPLACEMENT CHARACTER}"

    @staticmethod
    def split(text: str) -> Iterable[str]:
        return text


class WhitespaceVocabulary(_ListedVocabulary):
    """Each word between whitespace is a piece; text returns with single spaces between words."""

    kind = "whitespace"
    separator = " "
    unknown = SPECIAL_PIECES[UNK_ID]

    @staticmethod
    def split(text: str) -> Iterable[str]:
        return text.split()


class SentencePieceVocabulary(Vocabulary):
    """Subword pieces of a sentencepiece model; text returns NFKC-normalised with single spaces."""

    kind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self.model = model
        self._processor = SentencePieceProcessor(model_proto=model)  # pyright: ignore[reportCallIssue]

    @classmethod
    def build(cls, texts: Iterable[str], size: int, algorithm: str, coverage: float) -> Self:
        """Train a model of exactly ``size`` pieces; RuntimeError where sentencepiece cannot.

        ``coverage`` is the share of the running text whose characters it knows.
        """
        from sentencepiece import SentencePieceTrainer

        model = io.BytesIO()
        SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=algorithm,
            vocab_size=size,
            character_coverage=coverage,
            normalization_rule_name="nmt_nfkc",
            byte_fallback=False,
            max_sentence_length=1 << 30,  # bytes; the default leaves out long lines silently
            num_threads=1,  # the sums, and so the pieces, depend on the number of threads
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            minloglevel=2,
        )
        return cls(model.getvalue())

    @property
    def size(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(without_surrogates(text))

    def sample(self, texts: Iterable[str], rate: float, seed: int) -> list[list[int]]:
        """BPE-dropout; only merges of the algorithm bpe can be left out."""
        return BpeDropout(self._processor)(map(without_surrogates, texts), rate, seed)

    def token(self, index: int) -> str:
        return self._processor.id_to_piece(index)

    def _join(self, ids: list[int]) -> str:
        return self._processor.decode(ids) if ids else ""

    def save(self, folder: Path, side: Side) -> None:
        name = f"{side}.model"
        (folder / name).write_bytes(self.model)
        content = {"model": name, "sha256": hashlib.sha256(self.model).hexdigest()}
        write_description(folder, side, self.kind, content)

    @classmethod
    def read(cls, content: dict[str, Any], folder: Path) -> Self:
        """The vocabulary of a parsed file and the model it names; ValueError says what is wrong."""
        name = content.get("model")
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError("it names no model file beside it")
        model = (folder / name).read_bytes()
        if hashlib.sha256(model).hexdigest() != content.get("sha256"):
            raise ValueError(f"{name} is not the file it was saved with (its SHA-256 differs)")
        return cls(model)


def write_description(folder: Path, side: Side, kind: str, content: dict[str, Any]) -> None:
    """Write ``side.json``, which says how a vocabulary is read."""
    description = {"format_version": FORMAT_VERSION, "kind": kind, **content}
    text = json.dumps(description, ensure_ascii=False, indent=1)
    (folder / f"{side}.json").write_text(text + "\n", encoding="utf-8")
