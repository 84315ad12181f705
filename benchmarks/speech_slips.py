"""python -m benchmarks.speech_slips FOLDER RECORDING: what known slips do to a model that hears.

Every slip is planted alone, in the model or in its front end, and a recording of at most 30 s is
heard: the logits of the right text, teacher-forced in float64, beside those of the model without a
slip, and the text that greedy search then writes. A transcript that stays the same proves nothing.
The last row is no slip: features in float32.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import torch_transformer
from parity.comparison.causes import subject_of
from parity.forward.measures import divergence, largest, top
from parity.frameworks import exact_numbers
from parity.mutations.code import patched
from parity.mutations.convolutions import AT_END, EVERYWHERE
from parity.mutations.subjects import Subject, with_weights
from parity.mutations.table import MUTATIONS
from parity.sides.opening import open_side
from parity.sound.comparison import Sound, heard
from parity.sound.front_ends import SLIPS
from torch_transformer.decoding_state import next_logits, start
from training_recipe.speech.tokenizer import SpeechTokenizer
from training_recipe.speech.tokens import suppressed, suppressed_first

BOUND = 1e-10  # of float64 logits whose spread is some units
LONGEST = 40  # tokens of an output
HONEST = "features in float32"
POSITIONS = "encoder.pos_embedding.weight", "decoder.pos_embedding.weight"
OF_MODEL: dict[str, tuple[str, str]] = {
    "encoder positions by formula": ("stored positions", "the formula's numbers"),
    "tanh GELU after the convolutions": ("GELU after the convolutions", "gelu_tanh for gelu"),
    "tanh GELU everywhere": ("GELU after the convolutions", EVERYWHERE),
    "LayerNorm epsilon 1e-6": ("LayerNorm epsilon", "1e-06 for 1e-05"),
    "frequency 2i/d": ("stored positions", "of 2i/d, concatenated"),
    "conv2 padded at the end alone": ("padding of the convolutions", AT_END),
    "kernels of convolutions flipped": ("kernels of convolutions flipped", "everywhere"),
    "positions interleaved": ("stored positions", "of i/(d/2-1), interleaved"),
    "attention scale 1": ("attention scale", "1.0 for"),
    "embedding x sqrt(D)": ("embedding scale", "for 1.0"),
}
OF_SOUND = {
    "Hann window symmetric": "a symmetric Hann window for the periodic one",
    "HTK mel scale": "HTK's mel scale for Slaney's",
    "first frame dropped": "the first frame dropped for the last",
    "padding 0.0": "0.0 in frames without sound",
    "no maximum - 8": "nothing cut off 8 below the loudest bin",
    "magnitude for power": "magnitudes for powers",
    "natural logarithm": "the natural logarithm for that of base 10",
}


@dataclass(frozen=True)
class Row:
    """A slip: largest difference of logits, largest divergence in nats, share of equal best tokens,
    and the text that is written.
    """

    slip: str
    logits: float
    kl: float
    top1: float
    text: str
    same_text: bool


@dataclass(frozen=True)
class Hearing:
    """A model, what it hears, and how its ids are written as text."""

    subject: Subject
    sound: Sound
    tokenizer: SpeechTokenizer

    def outcome(
        self, subject: Subject, features: np.ndarray, text: Sequence[int] = ()
    ) -> tuple[np.ndarray, list[int]]:
        """Logits (T, V) of a text behind the prompt, and the ids that are written."""
        prompt = list(self.tokenizer.tokens.prompt("en" if self.several else None))
        weights = {name: torch.from_numpy(np.array(x)) for name, x in subject.weights.items()}
        with patched(subject.patches), torch.no_grad():
            model = torch_transformer.Transformer.skeleton(subject.config, torch.float64)
            model.load_state_dict(weights, assign=True)
            source = torch.from_numpy(features)[None]
            memory = model.encode(source)
            written = self._written(model, memory, source, prompt)
            target = torch.tensor([prompt + list(text or written)])
            return model.decode(target, memory, source)[0].numpy(), written

    @property
    def several(self) -> bool:
        return self.tokenizer.tokens.multilingual

    def _written(self, model, memory, source, prompt: list[int]) -> list[int]:
        """Greedy ids, the end counted out; signs that nobody says are never written."""
        tokens, encode = self.tokenizer.tokens, self.tokenizer.encode
        never = [*suppressed(tokens, encode), *range(tokens.no_timestamps, tokens.vocab_size)]
        written: list[int] = []
        state = start(model, memory, source, len(prompt) + LONGEST)
        new = prompt
        while len(written) < LONGEST:
            found, state = next_logits(model, torch.tensor([new]), state)
            logits = found[0, -1]
            logits[never] = -math.inf
            if not written:
                logits[list(suppressed_first(tokens, encode))] = -math.inf
            best = int(logits.argmax())
            if best == tokens.end:
                break
            written.append(best)
            new = [best]
        return written


def slips(hearing: Hearing) -> Iterator[tuple[str, Subject, np.ndarray]]:
    """Every slip alone: its name, the model, the features (W, M) float64."""
    right, sound = hearing.subject, hearing.sound
    for name, (mutation, words) in OF_MODEL.items():
        yield name, variant(right, mutation, words), sound.features
    for name, table in zip(("encoder", "decoder"), POSITIONS, strict=True):
        moved = np.roll(right.weights[table], -1, axis=0)
        yield f"{name} positions off by one", with_weights(right, {table: moved}), sound.features
    bins = right.config.feature_dim
    for name, words in OF_SOUND.items():
        yield name, right, SLIPS[words].features(sound.samples, bins)
    yield HONEST, right, sound.features.astype(np.float32).astype(np.float64)


def variant(right: Subject, mutation: str, words: str) -> Subject:
    """The subject with a variant of a mutation of the list."""
    found = next(m for m in MUTATIONS if m.name == mutation).variants(right)
    return next(subject for what, subject in found if words in what)


def measure(hearing: Hearing) -> Iterator[Row]:
    """The text without a slip, then a row for each slip, the least first where all are known."""
    truth, written = hearing.outcome(hearing.subject, hearing.sound.features)
    yield Row("none", 0.0, 0.0, 1.0, hearing.tokenizer.decode(written), True)
    for name, subject, features in slips(hearing):
        logits, ids = hearing.outcome(subject, features, written)
        same = float((top(logits, 1) == top(truth, 1)).mean())
        apart, kl = largest(logits - truth), float(divergence(truth, logits).max())
        yield Row(name, apart, kl, same, hearing.tokenizer.decode(ids), ids == written)


def opened(folder: Path, recording: Path) -> Hearing:
    """A folder of a model that hears and a recording."""
    side = open_side(str(folder), "torch")
    config = side.config
    tokenizer = SpeechTokenizer.load(folder, config.target_vocab_size)
    return Hearing(subject_of(side), heard(recording, config), tokenizer)


def in_words(row: Row) -> str:
    text = "same" if row.same_text else f"`{row.text}`" if row.text else "empty"
    return f"| {row.slip} | {row.logits:.1e} | {row.kl:.1e} | {row.top1:.0%} | {text} |"


def verdict(rows: Sequence[Row]) -> str:
    """How many slips are seen, and how many of them the text does not show."""
    planted = [row for row in rows if row.slip not in ("none", HONEST)]
    seen = sum(row.logits > BOUND for row in planted)
    hidden = sum(row.same_text for row in planted)
    return (
        f"{seen} of {len(planted)} slips are seen in float64 logits; {hidden} of them leave the "
        "text as it is"
    )


def main(say: Callable[[str], object] = print) -> None:
    parser = argparse.ArgumentParser(description="What known slips do to a model that hears.")
    parser.add_argument("folder", type=Path, help="a model, of any family that convert reads")
    parser.add_argument("recording", type=Path, help="at most 30 s are heard")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    exact_numbers()
    torch.set_num_threads(2)
    hearing, rows = opened(options.folder, options.recording), []
    for row in measure(hearing):
        rows.append(row)
        if not options.json:
            say(row.text if row.slip == "none" else in_words(row))
        if row.slip == "none" and not options.json:
            say("| slip | logits | KL | best tokens equal | text |\n|---|---|---|---|---|")
    say(json.dumps([asdict(row) for row in rows], indent=2) if options.json else verdict(rows))


if __name__ == "__main__":
    main()
