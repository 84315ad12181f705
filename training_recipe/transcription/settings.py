"""How recordings are transcribed."""

from __future__ import annotations

from dataclasses import dataclass, field

from training_recipe.searching.checks import is_number, is_whole
from training_recipe.speech.tokens import TASKS
from training_recipe.transcription.fallback import TEMPERATURES, Thresholds
from transformer_spec.errors import Faults, closest

LONGEST = 224  # tokens of an output


@dataclass(frozen=True)
class TranscriptionSettings:
    """What is asked for; the numbers are those that were published.

    ``language`` None is detected, ``task`` None transcribes. ``timestamps`` are written for
    recordings of at most a window too, as they always are for longer ones. ``beam`` 1 is greedy.
    Outputs that ``thresholds`` refuse are written again at the next of the ``temperatures``, the
    best of ``best_of`` samples where it is above 0. ``previous_text`` makes what was written the
    context of the next window; ``prompt`` is that of the first. ``chunks`` cuts every 30 s and so
    has many windows at once: words at the cuts suffer.
    """

    language: str | None = None
    task: str | None = None
    timestamps: bool = False
    beam: int = 1
    best_of: int = 5
    temperatures: tuple[float, ...] = TEMPERATURES
    thresholds: Thresholds = field(default_factory=Thresholds)
    previous_text: bool = False
    prompt: str = ""
    chunks: bool = False
    max_length: int = LONGEST
    seed: int = 0

    def check(self) -> None:
        """Raise one UserError that names every fault."""
        faults = Faults()
        text = self.language is None or isinstance(self.language, str)
        faults.require(text, f"language is {self.language!r}; give a code, as in 'fr'")
        if self.task is not None and self.task not in TASKS:
            near = closest(str(self.task), TASKS)
            faults.add(f"task is {self.task!r}; it is one of {', '.join(TASKS)}{near}")
        for name, least in (("beam", 1), ("best_of", 1), ("max_length", 1), ("seed", 0)):
            value = getattr(self, name)
            fits = is_whole(value) and value >= least
            faults.require(fits, f"{name} is {value!r}; it must be a whole number from {least} on")
        warm = [isinstance(self.temperatures, tuple) and bool(self.temperatures)]
        warm += [is_number(each) and 0 <= each <= 2 for each in self.temperatures if warm[0]]
        message = f"temperatures are {self.temperatures!r}; give numbers from 0 to 2, at least one"
        faults.require(all(warm), message)
        text = isinstance(self.prompt, str)
        faults.require(text, f"prompt is {self.prompt!r}; it must be a text")
        both = (self.previous_text or bool(self.prompt)) and self.chunks
        faults.require(
            not both,
            "previous_text or prompt, and chunks: these know of no text before them; leave one out",
        )
        faults.raise_if_any("cannot transcribe")
