"""Planted bugs in weights: exchanged, not transposed, in another order, missing, out of step."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from parity.mutations.relative import relative_halves
from parity.mutations.subjects import Mutation, Subject, Variants, with_fields, with_weights
from transformer_spec import TransformerConfig, weight_shapes

MOST_HEADS = 128


def attentions(config: TransformerConfig) -> list[str]:
    """Every attention module."""
    names = (name for name in weight_shapes(config) if name.endswith(".fcQ.weight"))
    return [name.removesuffix(".fcQ.weight") for name in names]


def groups(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """All of them, those of each kind, and each alone, with a word for each choice."""
    if len(names) > 1:
        yield "everywhere", names
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(kind_of(name), []).append(name)
    for kind, chosen in kinds.items():
        if len(kinds) > 1 and len(chosen) > 1:
            yield f"in every {kind}", chosen
    for name in names:
        yield f"in {name}", [name]


def kind_of(name: str) -> str:
    """A name without the number of its layer."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def exchange(one: str, other: str) -> Mutation:
    """Two projections of attention exchanged."""

    def variants(subject: Subject) -> Variants:
        for where, modules in groups(attentions(subject.config)):
            changed = {}
            for module in modules:
                for leaf in ("weight", "bias"):
                    names = [f"{module}.{part}.{leaf}" for part in (one, other)]
                    if all(name in subject.weights for name in names):
                        changed |= dict(
                            zip(names, [subject.weights[n] for n in names[::-1]], strict=True)
                        )
            yield where, with_weights(subject, changed)

    return Mutation(f"{one} and {other} exchanged", variants)


def not_transposed(part: str) -> Mutation:
    """A square matrix as it lies in the other framework."""

    def variants(subject: Subject) -> Variants:
        for where, modules in groups(attentions(subject.config)):
            names = [f"{module}.{part}.weight" for module in modules]
            if is_square(subject.config):
                yield where, with_weights(subject, {n: subject.weights[n].T for n in names})

    return Mutation(f"{part} not transposed", variants)


def is_square(config: TransformerConfig) -> bool:
    """Whether the matrices of attention fit the other way round."""
    return config.heads_dim == config.hidden_dim


def all_not_transposed(subject: Subject) -> Variants:
    if not is_square(subject.config):
        return
    for where, modules in groups(attentions(subject.config)):
        names = [f"{m}.{part}.weight" for m in modules for part in ("fcQ", "fcK", "fcV", "fcOut")]
        yield where, with_weights(subject, {n: subject.weights[n].T for n in names})


def other_head_order(subject: Subject) -> Variants:
    """Heads split as (A, H) instead of (H, A), in both senses; the output is left as it is."""
    H, A = subject.config.num_heads, subject.config.head_dim
    if 1 in (H, A):
        return
    for words, shape in (("(A, H) for (H, A)", (H, A)), ("(H, A) for (A, H)", (A, H))):
        order = np.arange(H * A).reshape(shape).T.ravel()
        names = [
            f"{module}.{part}.{leaf}"
            for module in attentions(subject.config)
            for part in ("fcQ", "fcK", "fcV")
            for leaf in ("weight", "bias")
        ]
        there = [name for name in names if name in subject.weights]
        yield words, with_weights(subject, {n: subject.weights[n][order] for n in there})


def other_heads(subject: Subject) -> Variants:
    """The same width cut into another number of heads, the nearest numbers first.

    The factor on scores follows where it is that of the head's width. Tables of relative positions
    have a column for each head, which shows how many there are.
    """
    config = subject.config
    now, width = config.num_heads, config.heads_dim
    if relative_halves(subject):
        return
    by_width = math.isclose(config.attention_scale, 1 / math.sqrt(config.head_dim))
    others = (H for H in range(1, min(width, MOST_HEADS) + 1) if width % H == 0 and H != now)
    for H in sorted(others, key=lambda H: abs(math.log(H / now))):
        A = width // H
        scale = 1 / math.sqrt(A) if by_width else config.attention_scale
        changed = with_fields(subject, num_heads=H, head_dim=A, attention_scale=scale)
        yield f"{H} for {now}", changed


def without_bias(suffixes: tuple[str, ...], words: str) -> Mutation:
    """Biases left at zero, as where they were not carried over."""

    def variants(subject: Subject) -> Variants:
        names = [n for n in subject.weights if n.endswith(suffixes) and subject.weights[n].any()]
        for where, chosen in groups(names):
            yield where, with_weights(subject, {n: 0 * subject.weights[n] for n in chosen})

    return Mutation(words, variants, one_way=True)


def exchanged_norms(subject: Subject) -> Variants:
    """LayerNorms of a layer in another order."""
    for half, count, layers in (
        ("decoder.dec_layers", 3, subject.config.num_decoder_layers),
        ("encoder.enc_layers", 2, subject.config.num_encoder_layers),
    ):
        for one, other in [(i, j) for i in range(1, count + 1) for j in range(i + 1, count + 1)]:
            pairs = [
                (f"{half}.{n}.layerNorm{one}.{leaf}", f"{half}.{n}.layerNorm{other}.{leaf}")
                for n in range(layers)
                for leaf in ("weight", "bias")
            ]
            yield f"layerNorm{one} and layerNorm{other} of {half}", exchanged(subject, pairs)


def exchanged(subject: Subject, pairs: list[tuple[str, str]]) -> Subject:
    """Weights in each other's place, where both are there."""
    changed = {}
    for one, other in pairs:
        if one in subject.weights and other in subject.weights:
            changed[one], changed[other] = subject.weights[other], subject.weights[one]
    return with_weights(subject, changed)


def norm_leaves_exchanged(subject: Subject) -> Variants:
    if subject.config.norm != "rms":
        names = [n.removesuffix(".weight") for n in subject.weights if is_norm(n)]
        yield "everywhere", exchanged(subject, [(f"{n}.weight", f"{n}.bias") for n in names])


def norm_weights_from_one(subject: Subject) -> Variants:
    """Norms that multiply by 1 + their weight, and what such ones hold taken for a factor."""
    names = [n for n in subject.weights if is_norm(n)]
    for words, more in (("1 + weight for weight", 1), ("weight for 1 + weight", -1)):
        yield words, with_weights(subject, {n: subject.weights[n] + more for n in names})


def gate_exchanged(subject: Subject) -> Variants:
    """The matrix that the activation is applied to and the gate in each other's place."""
    gates = [n.removesuffix(".fc3.weight") for n in subject.weights if n.endswith(".fc3.weight")]
    for where, modules in groups(gates):
        leaves = [(module, leaf) for module in modules for leaf in ("weight", "bias")]
        pairs = [(f"{module}.fc1.{leaf}", f"{module}.fc3.{leaf}") for module, leaf in leaves]
        yield where, exchanged(subject, pairs)


def is_norm(name: str) -> bool:
    return name.endswith(".weight") and ("orm" in name.split(".")[-2])


def exchanged_attentions(subject: Subject) -> Variants:
    """Attention over the target and over the source in each other's place."""
    names = [n for n in subject.weights if ".multiheadattention1." in n]
    pairs = [(n, n.replace(".multiheadattention1.", ".multiheadattention2.")) for n in names]
    if pairs:
        yield "in every decoder layer", exchanged(subject, pairs)


def layer_order(subject: Subject) -> Variants:
    """Layers reversed, or in the order of their numbers as text."""
    for half, count in (
        ("encoder.enc_layers", subject.config.num_encoder_layers),
        ("decoder.dec_layers", subject.config.num_decoder_layers),
    ):
        orders = {
            "reversed": list(range(count))[::-1],
            "sorted as text": sorted(range(count), key=str),
            "moved by one": [(i + 1) % count for i in range(count)] if count else [],
            "moved back by one": [(i - 1) % count for i in range(count)] if count else [],
        }
        for words, order in orders.items():
            if order != list(range(count)):
                yield f"{half} {words}", reordered(subject, half, order)


def reordered(subject: Subject, half: str, order: list[int]) -> Subject:
    changed = {}
    for name in subject.weights:
        if name.startswith(half + "."):
            number, _, rest = name.removeprefix(half + ".").partition(".")
            changed[name] = subject.weights[f"{half}.{order[int(number)]}.{rest}"]
    return with_weights(subject, changed)


def moved_rows(subject: Subject) -> Variants:
    """Rows of a table one too far: ids or positions off by one."""
    for name in [n for n in subject.weights if n.endswith("embedding.weight")]:
        for step in (1, -1):
            moved = np.roll(subject.weights[name], step, axis=0)
            yield f"{name} by {step:+d} row", with_weights(subject, {name: moved})


def exchanged_tables(subject: Subject) -> Variants:
    """The embeddings of source and target in each other's place."""
    names = "encoder.embedding.weight", "decoder.embedding.weight"
    shapes = {subject.weights[n].shape for n in names if n in subject.weights}
    if all(n in subject.weights for n in names) and len(shapes) == 1:
        yield "source and target table", exchanged(subject, [names])
