"""The tokens that are no text, and how an output begins: all follows from the vocabulary's size.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.3.
Three vocabularies are published: of English alone, of 99 languages, and of 100.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training_recipe.text.languages import NEAR, near
from transformer_spec import UserError
from transformer_spec.errors import printable_name

ENGLISH, MULTILINGUAL, LARGEST = 51864, 51865, 51866
TEXT_TOKENS = 50256  # of GPT-2's vocabulary, its end of text not counted
TIMESTAMPS, SECONDS_EACH = 1501, 0.02
LATEST_FIRST = 50  # the latest first timestamp, in steps
BLANK = " "
LANGUAGES = tuple(
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no "
    "th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw "
    "gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl "
    "mg as tt haw ln ha ba jw su yue".split()
)
TASKS = ("translate", "transcribe")
# Texts that stand for something that is not said; of each the token, and that with a space before.
SYMBOLS = tuple(
    '" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ '
    "(' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split()
)
NOTES = tuple("♩♪♫♬♭♮♯")
DASHES = (" -", " '")


@dataclass(frozen=True)
class SpeechTokens:
    """Ids of one of the published vocabularies.

    ``languages`` are codes in the order of their ids, the first of which is ``first_language``.
    """

    end: int
    start: int
    languages: tuple[str, ...]
    multilingual: bool

    @classmethod
    def of(cls, vocab_size: int) -> SpeechTokens:
        """Those of a vocabulary of so many tokens; a UserError where it is none of the three."""
        if vocab_size not in (ENGLISH, MULTILINGUAL, LARGEST):
            raise UserError(
                f"a vocabulary of {vocab_size} tokens is none of Whisper's: {ENGLISH} (English), "
                f"{MULTILINGUAL} (99 languages) or {LARGEST} (100 languages)"
            )
        several = vocab_size >= MULTILINGUAL
        count = vocab_size - 51765 - several
        end = TEXT_TOKENS + several
        return cls(end, end + 1, LANGUAGES[:count], several)

    @property
    def first_language(self) -> int:
        return self.start + 1

    @property
    def translate(self) -> int:
        return self.first_language + len(self.languages)

    @property
    def transcribe(self) -> int:
        return self.translate + 1

    @property
    def start_of_lm(self) -> int:
        """A token that nothing feeds and nothing wants: the padding of models in this house."""
        return self.translate + 2

    @property
    def start_of_previous(self) -> int:
        return self.translate + 3

    @property
    def no_speech(self) -> int:
        return self.translate + 4

    @property
    def no_timestamps(self) -> int:
        return self.translate + 5

    @property
    def first_timestamp(self) -> int:
        return self.translate + 6

    @property
    def vocab_size(self) -> int:
        return self.first_timestamp + TIMESTAMPS

    def language(self, code: str) -> int:
        """The id of a language's code; a UserError names those that there are."""
        if code not in self.languages:
            close = near(code, self.languages) or self.languages[:NEAR]
            told = f"it has {len(self.languages)}, such as {', '.join(close)}"
            raise UserError(f"the model has no language {printable_name(code)!r}; {told}")
        return self.first_language + self.languages.index(code)

    def task(self, name: str) -> int:
        if name not in TASKS:
            raise UserError(f"task {name!r}; it is one of {', '.join(TASKS)}")
        return self.translate if name == "translate" else self.transcribe

    def names(self) -> dict[str, int]:
        """Every token that is no text and no timestamp, as tokenizers spell it."""
        codes = {f"<|{code}|>": self.language(code) for code in self.languages}
        return {
            "<|endoftext|>": self.end,
            "<|startoftranscript|>": self.start,
            **codes,
            "<|translate|>": self.translate,
            "<|transcribe|>": self.transcribe,
            "<|startoflm|>": self.start_of_lm,
            "<|startofprev|>": self.start_of_previous,
            "<|nospeech|>": self.no_speech,
            "<|notimestamps|>": self.no_timestamps,
        }

    def prompt(
        self, language: str | None = None, task: str | None = None, timestamps: bool = False
    ) -> tuple[int, ...]:
        """How an output begins; a model of English alone takes neither language nor task.

        The others need a language, and transcribe unless told otherwise.
        """
        found = [self.start]
        if self.multilingual:
            if language is None:
                raise UserError("a model of several languages needs a language to begin with")
            found += [self.language(language), self.task(task or "transcribe")]
        elif language not in (None, "en") or task not in (None, "transcribe"):
            asked = {"language": language, "task": task}
            given = ", ".join(f"{name} {value!r}" for name, value in asked.items() if value)
            told = "this model transcribes English alone; leave it out, or take one of several"
            raise UserError(f"{given}: {told} languages")
        return tuple(found if timestamps else [*found, self.no_timestamps])

    def seconds(self, token: int) -> float:
        """The time that a timestamp stands for."""
        return (token - self.first_timestamp) * SECONDS_EACH


def suppressed(tokens: SpeechTokens, encode: Callable[[str], list[int]]) -> tuple[int, ...]:
    """The ids that are never written: signs that nobody says, and tokens that only begin outputs.

    ``encode`` gives a text's ids, none of the special ones around them.
    """
    found = {encode(text)[0] for text in DASHES}
    for text in (*SYMBOLS, *NOTES):
        for ids in (encode(text), encode(" " + text)):
            if len(ids) == 1 or text in NOTES:
                found.add(ids[0])
    return tuple(sorted(found | set(suppressed_special(tokens))))


def suppressed_special(tokens: SpeechTokens) -> tuple[int, ...]:
    """Those of them that are no text, and only begin outputs."""
    found = {tokens.translate, tokens.transcribe, tokens.start, tokens.start_of_previous}
    return tuple(sorted(found | {tokens.start_of_lm, tokens.no_speech}))


def suppressed_first(tokens: SpeechTokens, encode: Callable[[str], list[int]]) -> tuple[int, ...]:
    """The ids that are not written first: a blank, and the end."""
    return (encode(BLANK)[0], tokens.end)
