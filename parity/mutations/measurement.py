"""What every planted bug does to the logits of a model, and which published checks would see it.

The model is of base size with random numbers, biases and norms too; what it has no place for is
planted in one of T5's kind or of Whisper's. Published checks compare in
float32: those of MaxText (its documented command allows a largest KL divergence of 0.015) and of
transformers 4 (4e-2 on logits from Flax to PyTorch, 1e-4 from PyTorch to Flax).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.forward.ids import Ids, generated
from parity.forward.measures import STEP_BOUND, divergence
from parity.forward.substeps import LOGITS
from parity.frameworks import exact_numbers
from parity.mutations.running import run
from parity.mutations.subjects import Mutation, Subject
from parity.mutations.table import MUTATIONS
from transformer_spec import Faults, TransformerConfig, initial_weights

PUBLISHED = {
    "MaxText, KL 0.015": ("kl", 0.015),
    "transformers, 4e-2": ("float32", 4e-2),
    "transformers, 1e-4": ("float32", 1e-4),
}
HEADING = (
    f"| planted bug | float64 | float32 | KL | {' | '.join(PUBLISHED)} |\n"
    f"|---|---|---|---|{'---|' * len(PUBLISHED)}"
)


@dataclass(frozen=True)
class Size:
    """Pre-norm models, in one of which every planted bug has something to spoil."""

    layers: int = 6
    width: int = 512
    vocabulary: int = 8000

    def config(self) -> TransformerConfig:
        V, D = self.vocabulary, self.width
        return TransformerConfig(
            V, V, D, 4 * D, max(2, D // 64), self.layers, self.layers, 64,
            norm_position="pre", activation="gelu", pad_id=1, bos_id=0, embedding_norm=True,
        )  # fmt: skip

    def models(self) -> tuple[TransformerConfig, ...]:
        return self.config(), self.relative(), self.deviating(), self.hearing(), self.learned()

    def relative(self) -> TransformerConfig:
        """The same with T5's norms, gates and positions."""
        fields = {"encoder_positions": "relative", "decoder_positions": "relative"}
        return replace(
            self.config(), **fields, norm="rms", gated_ffn=True, attention_scale=1.0,
            embedding_scale=1.0, embedding_norm=False, relative_per_layer=True,
        )  # fmt: skip

    def deviating(self) -> TransformerConfig:
        """The same with norms that divide by the standard deviation."""
        return replace(self.config(), norm="std", norm_epsilon=1e-6)

    def hearing(self) -> TransformerConfig:
        """The same with Whisper's features, convolutions and stored positions."""
        return replace(
            self.config(), source_vocab_size=0, feature_dim=80, embedding_norm=False,
            embedding_scale=1.0, encoder_positions="frozen", decoder_positions="learned",
            sinusoid_layout="concatenated", sinusoid_frequency="i/(d/2-1)", key_bias=False,
        )  # fmt: skip

    def learned(self) -> TransformerConfig:
        """The same with learned positions."""
        return replace(self.config(), encoder_positions="learned", decoder_positions="learned")


@dataclass(frozen=True)
class Planted:
    """How far a bug moves the logits in each number format, and their divergence in nats."""

    bug: str
    planted: str
    float64: float
    float32: float
    kl: float

    @property
    def seen(self) -> bool:
        return self.float64 > STEP_BOUND


def plant(size: Size) -> Iterator[Planted]:
    """The first variant of every mutation, planted in the first model that has a place for it.

    A mutation that none has a place for is a UserError, before anything is computed.
    """
    exact_numbers()
    models = [Right(random_subject(config)) for config in size.models()]
    places = {mutation.name: _place(mutation, models) for mutation in MUTATIONS}
    faults = Faults()
    for name in [name for name, model in places.items() if model is None]:
        faults.add(f"no model has a place for {name!r}")
    faults.raise_if_any("not every bug can be planted", advice="give more --layers or --width")
    for mutation in MUTATIONS:
        model = places[mutation.name]
        assert model is not None
        yield model.spoiled(mutation.name, *next(mutation.variants(model.subject)))


def _place(mutation: Mutation, models: Sequence[Right]) -> Right | None:
    return next((one for one in models if next(mutation.variants(one.subject), None)), None)


@dataclass(frozen=True)
class Right:
    """A model without any bug."""

    subject: Subject

    @functools.cached_property
    def ids(self) -> Ids:
        return generated(self.subject.config)[0]

    @functools.cached_property
    def truth(self) -> dict[str, np.ndarray]:
        return self.logits(self.subject)

    def logits(self, subject: Subject) -> dict[str, np.ndarray]:
        """Real positions of the logits in each number format."""
        mask = self.ids.real(self.subject.config)[1]
        return {
            wide: run(subject, self.ids, dtype=wide)[LOGITS][mask]
            for wide in ("float64", "float32")
        }

    def spoiled(self, bug: str, what: str, wrong: Subject) -> Planted:
        found, truth = self.logits(wrong), self.truth
        wide, narrow = (float(np.abs(found[name] - truth[name]).max()) for name in truth)
        kl = float(divergence(truth["float32"], found["float32"]).max())
        return Planted(bug, what, wide, narrow, kl)


def random_subject(config: TransformerConfig) -> Subject:
    """A model with no number at zero or one, where a bug could hide."""
    draw = np.random.default_rng(1)
    first = initial_weights(config, 0, np.float64)
    weights = {name: a + draw.normal(0, 0.02, a.shape) for name, a in first.items()}
    return Subject(config, weights)


def in_words(row: Planted) -> str:
    """A row of the table below HEADING; "passes" where a published check lets the bug through."""
    by = [getattr(row, k) <= bound for k, bound in PUBLISHED.values()]
    passes = " | ".join("passes" if passed else "caught" for passed in by)
    numbers = f"{row.float64:.1e} | {row.float32:.1e} | {row.kl:.1e}"
    return f"| {row.bug}: {row.planted} | {numbers} | {passes} |"


def total(rows: Sequence[Planted]) -> str:
    """The table's last row: how many bugs each published check lets through."""
    counts = [sum(getattr(row, k) <= bound for row in rows) for k, bound in PUBLISHED.values()]
    return f"| all | | | | {' | '.join(f'{count} of {len(rows)} pass' for count in counts)} |"


def verdict(rows: Sequence[Planted]) -> str:
    missed = [row.bug for row in rows if not row.seen]
    if missed:
        return f"FAIL: {len(missed)} of {len(rows)} bugs are not seen: {', '.join(missed)}"
    least = min(row.float64 for row in rows)
    return f"PASS: all {len(rows)} bugs are seen in float64, the least by {least:.1e}"
