"""Planted bugs in what the model is made of: ties, norms, positions, number formats."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np

from parity.forward.used_settings import uses
from parity.mutations.relative import tables_of
from parity.mutations.subjects import Subject, Variants, with_fields, with_weights
from parity.mutations.weights import is_norm
from transformer_spec import LEARNED, RELATIVE, STORED, tied_weights
from transformer_spec.config import NORMS
from transformer_spec.inventory import OUTPUT

MEAN_KEPT = "the mean not taken off"
# With e = 0, 2, ... and d the width; of frequencies i/(d/2-1) e = 0, 1, ... and d/2-1 in its place.
FLOAT32_SINUSOIDS = (
    "rounded to float32",
    "computed in float32, position / 10000 ** (e / d)",
    "computed in float32, exp(e * (-log(10000) / d))",
    "computed in float32, exp(-e * log(10000) / d)",
    "computed in float32, 1 / 10000 ** (e / d)",
)


def tie_broken(subject: Subject) -> Variants:
    """An output projection of its own where it should be the target's table, or stale numbers."""
    output, target, source = OUTPUT, "decoder.embedding.weight", "encoder.embedding.weight"
    table = subject.weights[target if target in subject.weights else source]
    of_source = subject.weights.get(source)
    if output in subject.weights:
        yield "the target's table as output", with_weights(subject, {output: table})
    if target in subject.weights and of_source is not None and table.shape == of_source.shape:
        same = with_weights(subject, {target: of_source})
        yield "the source's table for the target", same
    if output not in subject.weights:
        own = np.random.default_rng(7).normal(0, 0.05, (output_shape(subject)))
        untied = untied_subject(subject)
        yield "an output of its own", with_weights(untied, {output: own})


def output_shape(subject: Subject) -> tuple[int, int]:
    return subject.config.target_vocab_size, subject.config.hidden_dim


def untied_subject(subject: Subject) -> Subject:
    """The same function with every table stored for itself."""
    weights = dict(subject.weights)
    for name, owner in tied_weights(subject.config).items():
        weights[name] = weights[owner]
    return Subject(replace(subject.config, tied_embeddings="none"), weights, subject.patches)


def final_norms(subject: Subject) -> Variants:
    """The norms after the last layers left out, or there although they should not be."""
    names = [f"{half}.final_norm" for half in ("encoder", "decoder")]
    if subject.config.final_norm:
        kept = {n: a for n, a in subject.weights.items() if ".final_norm." not in n}
        yield "left out", Subject(replace(subject.config, final_norm=False), kept, subject.patches)
        return
    D, plain = subject.config.hidden_dim, {}
    for name in names:
        plain |= {f"{name}.weight": np.ones(D)}
        plain |= {f"{name}.bias": np.zeros(D)} if subject.config.norm != "rms" else {}
    there = replace(subject.config, final_norm=True)
    yield "added", Subject(there, subject.weights | plain, subject.patches)


def other_norm(subject: Subject) -> Variants:
    """Norms of the other kind: its biases are none or zero, or those of LayerNorm are kept."""
    weights = {n: a for n, a in subject.weights.items() if not is_norm_bias(n)}
    old, biased = subject.config.norm, dict(subject.weights)
    if old == "rms":
        norms = [n for n in weights if is_norm(n)]
        biased |= {n.replace(".weight", ".bias"): 0 * weights[n] for n in norms}
    for new in NORMS:
        if new != old:
            there = replace(subject.config, norm=new)
            held = weights if new == "rms" else biased
            yield f"{new} for {old}", Subject(there, held, subject.patches)
    if old == "layer":
        yield MEAN_KEPT, replace(subject, patches=(*subject.patches, MEAN_KEPT))


def is_norm_bias(name: str) -> bool:
    return name.endswith(".bias") and is_norm(f"{name.removesuffix('.bias')}.weight")


def embedding_norms(subject: Subject) -> Variants:
    if subject.config.embedding_norm:
        kept = {n: a for n, a in subject.weights.items() if ".embedding_norm." not in n}
        config = replace(subject.config, embedding_norm=False)
        yield "left out", Subject(config, kept, subject.patches)


def rounded(subject: Subject) -> Variants:
    """Weights that went through a narrower format."""
    for name, dtype in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        with np.errstate(over="ignore"):
            narrow = {n: a.astype(dtype).astype(a.dtype) for n, a in subject.weights.items()}
        yield f"to {name}", with_weights(subject, narrow)


def float32_sinusoids(subject: Subject) -> Variants:
    """The table of positions in float32, in each of its forms."""
    config = subject.config
    if "sinusoidal" not in (config.encoder_positions, config.decoder_positions):
        return
    for words in FLOAT32_SINUSOIDS:
        yield words, replace(subject, patches=(*subject.patches, words))


def position_offsets(subject: Subject) -> Variants:
    """Positions counted from another number; stored tables keep their rows."""
    config = subject.config
    if not uses(config, "position_offset"):
        return
    kinds = config.encoder_positions, config.decoder_positions
    stored = any(kind in STORED for kind in kinds)
    for offset in sorted({0, 1, 2, config.pad_id + 1, config.position_offset + 1}):
        moved = offset - config.position_offset
        if not moved:
            continue
        words = f"{offset} for {config.position_offset}"
        if not stored:
            yield words, with_fields(subject, position_offset=offset)
            continue
        tables = [n for n in subject.weights if n.endswith("pos_embedding.weight")]
        rows = {n: np.roll(subject.weights[n], -moved, axis=0) for n in tables}
        yield words, with_weights(subject, rows)


def no_positions(subject: Subject) -> Variants:
    for half in ("encoder", "decoder"):
        if getattr(subject.config, f"{half}_positions") == "sinusoidal":
            yield f"none in the {half}", with_fields(subject, **{f"{half}_positions": "none"})
        elif getattr(subject.config, f"{half}_positions") == RELATIVE:
            without = {
                n: a for n, a in subject.weights.items() if n not in tables_of(subject, half)
            }
            config = replace(subject.config, **{f"{half}_positions": "none"})
            yield f"none in the {half}", Subject(config, without, subject.patches)
        elif getattr(subject.config, f"{half}_positions") == "none":
            there = with_fields(subject, **{f"{half}_positions": "sinusoidal"})
            yield f"sinusoidal in the {half}", there


def norm_before_positions(subject: Subject) -> Variants:
    """Learned positions added on the other side of the norm on embeddings."""
    for half in ("encoder", "decoder"):
        kind = getattr(subject.config, f"{half}_positions")
        if subject.config.embedding_norm and kind in LEARNED:
            (other,) = set(LEARNED) - {kind}
            words = f"{other} for {kind} in the {half}"
            yield words, with_fields(subject, **{f"{half}_positions": other})


def norm_position(subject: Subject) -> Variants:
    other = "pre" if subject.config.norm_position == "post" else "post"
    fixed = {"norm_position": other, "final_norm": subject.config.final_norm}
    yield f"{other} for {subject.config.norm_position}", with_fields(subject, **fixed)
