"""The stages of a search: a part switched on after the other, choices kept that agree.

Parts are switched off by zeros, in the module and in the twin alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.naming.candidates import Candidate, Place, TwinSide
from parity.naming.patterns import Pattern, Unit
from parity.naming.probes import LONG, ONE, Names, Probes, Shape, distance, names_of
from parity.naming.roles import OUTPUT, SOURCE, TARGET, Attention, Half, Roles
from transformer_spec import UserError
from transformer_spec.config import ACTIVATIONS, SINUSOID_FREQUENCIES, SINUSOID_LAYOUTS

# What an unknown epsilon may hide, what rounding of a constant may hide, and what nothing hides.
COARSE, ROUGH, EXACT = 3e-2, 1e-6, 1e-11
EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-7, 1e-9, 1e-10, 1e-3, 1e-4)
SCALES = ("sqrt(D)", 1.0)
OUTPUT_SCALES = (1.0, "1/sqrt(D)")
ATTENTION_SCALES = ("1/sqrt(A)", "1/sqrt(D)", 1.0, "1/A", "1/D")
# What a module may have rounded to float32.
ROUNDED = {
    "sqrt(D)": "float32(sqrt(D))",
    "1/sqrt(D)": "1/float32(sqrt(D))",
    "1/sqrt(A)": "1/float32(sqrt(A))",
}
OFFSETS = (0, 1, 2)
PAD, LENGTH = 0, 512
NAMES = {"encoder": "encoder.enc_layers.{i}", "decoder": "decoder.dec_layers.{i}"}
ATTENTIONS = {
    "encoder": ("multiheadattention",),
    "decoder": ("multiheadattention1", "multiheadattention2"),
}
# By how many matrices make scores: what the tensor of values holds; which of Q and K is first
# is seen later.
PARTS = {2: ("V",), 1: ("KV", "VK"), 0: ("QKV", "QVK", "VQK")}
HEADS_OF_PARTS = "heads parts"
# Kernels of heads, by where the model's width is.
QUERY_LAYOUTS = ("(in, heads, dim)", "(heads, in, dim)", "(heads, dim, in)")
OUTPUT_LAYOUTS = ("(out, heads, dim)", "(heads, out, dim)", "(heads, dim, out)")
Offered = Iterable[Candidate]
# What matrices whose shapes fit in no way should be.
FEED_FORWARD = "the {}'s feed-forward takes the model's width to another and back"
ATTENTION = (
    "an attention of the {} has queries, keys, values and an output, each a matrix or a part of "
    "one; a matrix that serves as two of them needs a copy under a name of its own, in the module "
    "and in the file, and the two train apart"
)


class Departure(UserError):
    """No choice agrees; says from which sub-step on."""


@dataclass
class Stages:
    """Carries candidates from stage to stage; ``heads`` are those that are told."""

    probes: Probes
    roles: Roles
    twin: TwinSide
    heads: int | None = None
    settled: list[str] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    open_heads: tuple[int, ...] = ()
    refused: str = ""
    nearest: float = float("inf")

    def run(self) -> list[Candidate]:
        """The candidates that agree at every stage; a Departure where none is left."""
        self._begin()
        self._embeddings()
        self._feed_forward("decoder")
        self._attention("decoder", 0, "decoder self-attention")
        self._cross_attention()
        self._feed_forward("encoder")
        self._attention("encoder", 0, "encoder self-attention")
        return self.candidates

    # Stages.

    def _embeddings(self) -> None:
        """Embeddings, positions, norms and the output: all that is left without sub-layers."""
        self._spread(lambda c: self._of_decoder(c))
        what = "decoder embeddings, norms and the output"
        off = names_of(self._matrices())
        self._agreeing(what, off, LONG, COARSE)
        self._refine(what, off, ("embedding_scale", "output_scale"), self._has_norms_alive())

    def _feed_forward(self, name: str) -> None:
        half = self._half(name)
        self._spread(lambda c: self._with_ffn(c, name, half))
        on = names_of(half.ffn)
        if name == "decoder":
            self._spread(lambda c: (c.settled(activation=a) for a in ACTIVATIONS))
        else:
            on |= names_of(self.roles.decoder.attentions[1].units)
        off = names_of(self._matrices()) - on
        if name == "decoder" and not self._has_norms_alive():
            self._spread(lambda c: (c.settled(norm=n) for n in self._norm_kinds()))
            self._agreeing(f"{name} feed-forward", off, LONG, COARSE)
            self._refine(f"{name} feed-forward", off, (), True)
        else:
            self._agreeing(f"{name} feed-forward", off, LONG, EXACT)

    def _attention(self, name: str, number: int, what: str) -> None:
        """Values and output first, where a text of one token needs no scores."""
        attention = self._half(name).attentions[number]
        on = names_of(attention.units)
        if name == "encoder":
            on |= names_of(self.roles.decoder.attentions[1].units)
        off = names_of(self._matrices()) - on
        self._spread(lambda c: self._with_values(c, name, number, attention))
        self._agreeing(f"{what} (values and output)", off, ONE, EXACT)
        self._spread(lambda c: self._with_scores(c, name, number, attention))
        what = f"{what} (queries, keys, heads and scale)"
        if name == "decoder":
            self._spread(self._scaled)
            self._agreeing(what, off, LONG, ROUGH)
            self._refine(what, off, ("attention_scale",), False)
        else:
            self._agreeing(what, off, LONG, EXACT)

    def _cross_attention(self) -> None:
        attention = self.roles.decoder.attentions[1]
        off = names_of(self._matrices()) - names_of(attention.units)
        self._spread(lambda c: self._with_values(c, "decoder", 1, attention))
        self._spread(lambda c: self._of_encoder(c))
        what = "encoder embeddings and attention over them"
        self._agreeing(f"{what} (values and output)", off, ONE, EXACT)
        self._spread(lambda c: self._with_scores(c, "decoder", 1, attention))
        self._agreeing(what, off, LONG, EXACT)

    def _refine(self, what: str, off: Names, scales: Sequence[str], with_epsilon: bool) -> None:
        """Of each candidate the first that agrees exactly: what its epsilon is, what is rounded."""
        found, tried = list[Candidate](), 0
        for candidate in self.candidates:
            values = candidate.values
            choices: list[tuple[Any, ...]] = [
                (values[n], ROUNDED.get(str(values[n]), values[n])) for n in scales
            ]
            choices.append(EPSILONS if with_epsilon else (values["norm_epsilon"],))
            names = (*scales, "norm_epsilon")
            for chosen in dict.fromkeys(itertools.product(*choices)):
                one, tried = candidate.settled(**dict(zip(names, chosen, strict=True))), tried + 1
                self.nearest = self._differences([one], off, LONG)[0]
                if self.nearest <= EXACT:
                    found.append(one)
                    break
        if not found:
            raise self.departure(what, tried, self.nearest)
        self.settled.append(what)
        self.candidates = found

    # What is open at a stage.

    def _begin(self) -> None:
        """One candidate with all that probes told, and any choice that fits of what is open."""
        roles, places = self.roles, dict[str, Place]()
        self.open_heads = self._heads_by_shape()
        for text, ours in roles.tables.items():
            places[text] = (f"{ours[0]}.weight",), self._table_layout(text, ours)
        if roles.output_bias:
            places[roles.output_bias] = (f"{OUTPUT}.bias",), None
        for name in ("encoder", "decoder"):
            half = self._half(name)
            for k, unit in enumerate(half.norms):
                places |= self._norm(unit, f"{NAMES[name]}.layerNorm{k + 1}")
            for place in ("embedding_norm", "final_norm"):
                if (unit := getattr(half, place)) is not None:
                    places |= self._norm(unit, f"{name}.{place}")
        settings = self._first_settings()
        stored = {tuple(h for h, t in roles.positions.items() if t == text): text
                  for text in roles.positions.values()}  # fmt: skip
        for halves, text in stored.items():
            kind = "learned" if self._trained(text) else "frozen"
            settings |= {f"{half}_positions": kind for half in halves}
            ours = tuple(f"{half}.pos_embedding.weight" for half in halves)
            places[text] = ours, self._table_layout(text, ["pos_embedding"])
        if not stored:
            settings["max_length"] = LENGTH
        else:
            del settings["max_length"]
        begun = Candidate.of(places, settings)
        for name in ("encoder", "decoder"):
            half = self._half(name)
            begun = _any(self._with_ffn(begun, name, half), half.ffn, FEED_FORWARD.format(name))
            for k, attention in enumerate(half.attentions):
                units, told = attention.units, ATTENTION.format(name)
                begun = _any(self._with_values(begun, name, k, attention), units, told)
                begun = _any(self._with_scores(begun, name, k, attention), units, told)
        self.candidates = [begun]

    def _first_settings(self) -> dict[str, Any]:
        """What probes told, and any choice of what is open."""
        return {
            "norm_position": self.roles.norm_position,
            "activation": "relu",
            "embedding_scale": "sqrt(D)",
            "norm_epsilon": 1e-5,
            "pad_id": PAD,
            "encoder_positions": "none",
            "decoder_positions": "none",
            "sinusoid_layout": "interleaved",
            "sinusoid_frequency": "2i/d",
            "position_offset": self.roles.offset,
            "num_heads": self.open_heads[0],
            "max_length": None,
            "norm": self._norm_kinds()[0],
            "output_scale": 1.0,
            "attention_scale": "1/sqrt(A)",
            "tied_embeddings": self._ties(),
        }

    def _of_decoder(self, candidate: Candidate) -> Iterator[Candidate]:
        for kind, scale, output in itertools.product(self._norm_kinds(), SCALES, OUTPUT_SCALES):
            one = candidate.settled(norm=kind, embedding_scale=scale, output_scale=output)
            yield from self._positions(one, "decoder", OFFSETS)

    def _of_encoder(self, candidate: Candidate) -> Iterator[Candidate]:
        """The encoder's sinusoids are the decoder's, where that has any."""
        if candidate.values["decoder_positions"] == "sinusoidal":
            both = ("sinusoidal", "none")
            stored = "encoder" in self.roles.positions
            kinds = self._stored_kinds("encoder") if stored else both
            yield from (candidate.settled(encoder_positions=kind) for kind in kinds)
        else:
            yield from self._positions(candidate, "encoder", OFFSETS)

    def _positions(
        self, candidate: Candidate, half: str, offsets: Sequence[int]
    ) -> Iterator[Candidate]:
        field_name = f"{half}_positions"
        if half in self.roles.positions:
            for kind in self._stored_kinds(half):
                yield candidate.settled(**{field_name: kind})
            return
        yield candidate
        if self.roles.positions:  # a stored table has told the offset
            offsets = (self.roles.offset,)
        kinds = itertools.product(SINUSOID_LAYOUTS, SINUSOID_FREQUENCIES, offsets)
        for layout, frequency, offset in kinds:
            yield candidate.settled(
                **{field_name: "sinusoidal"}, sinusoid_layout=layout,
                sinusoid_frequency=frequency, position_offset=offset,
            )  # fmt: skip

    def _stored_kinds(self, half: str) -> tuple[str, ...]:
        if not self._trained(self.roles.positions[half]):
            return ("frozen",)
        normed = self._half(half).embedding_norm is not None
        return ("learned", "learned_after_norm") if normed else ("learned",)

    def _norm_kinds(self) -> tuple[str, ...]:
        norms = [*self.roles.decoder.norms, *self.roles.encoder.norms]
        biased = any(unit.bias is not None for unit in norms)
        return ("layer", "std") if biased else ("layer", "std", "rms")

    def _scaled(self, candidate: Candidate) -> Iterator[Candidate]:
        parts = any(HEADS_OF_PARTS in str(layout) for _, (_, layout) in candidate.places)
        known = (candidate.values["num_heads"],) if parts else self.open_heads
        for heads, scale in itertools.product(known, ATTENTION_SCALES):
            yield candidate.settled(num_heads=heads, attention_scale=scale)

    def _with_ffn(self, candidate: Candidate, name: str, half: Half) -> Iterator[Candidate]:
        count = len(half.ffn)
        roles = [f"{NAMES[name]}.ffn.{part}" for part in ("fc1", "fc2", "fc3")[:count]]
        settings = {"gated_ffn": True} if count == 3 else {}
        for order in itertools.permutations(half.ffn):
            for layouts in self._orientations(list(zip(order, roles, strict=True))):
                yield candidate.placed(layouts).settled(**settings)

    def _with_values(
        self, candidate: Candidate, name: str, number: int, attention: Attention
    ) -> Iterator[Candidate]:
        """Which of two is the output, and which part of a fused tensor are values."""
        module = f"{NAMES[name]}.{ATTENTIONS[name][number]}"
        if len(attention.values) == 1:
            yield candidate
            return
        for value, output in itertools.permutations(attention.values):
            yield from self._value_places(candidate, module, value, output, attention)

    def _value_places(
        self, candidate: Candidate, module: str, value: Unit, output: Unit, attention: Attention
    ) -> Iterator[Candidate]:
        for order in PARTS[len(attention.scores)]:
            fused = [f"{module}.fc{letter}" for letter in order]
            for layout in _fused_layouts(value, len(fused), self.roles.width):
                places = self._linear(value, fused, layout)
                for out in self._output_layouts(output):
                    if self._fits(value, output, len(fused), layout, out):
                        there = self._linear(output, [f"{module}.fcOut"], out)
                        yield from self._in_heads(candidate.placed(places | there), layout)

    def _in_heads(self, candidate: Candidate, layout: str | None) -> Iterator[Candidate]:
        """How many heads there are matters early where parts lie inside each."""
        heads = self.open_heads if HEADS_OF_PARTS in str(layout) else ()
        yield from (candidate.settled(num_heads=h) for h in heads)
        if not heads:
            yield candidate

    def _fits(
        self, value: Unit, output: Unit, count: int, layout: str | None, out: str | None
    ) -> bool:
        """Whether what values give is what the output takes, by their shapes."""
        widths = _between(value, layout, count, self.roles.width)
        return widths is None or widths == _taken(output, out)

    def _with_scores(
        self, candidate: Candidate, name: str, number: int, attention: Attention
    ) -> Iterator[Candidate]:
        module = f"{NAMES[name]}.{ATTENTIONS[name][number]}"
        letters = ("Q", "K") if len(attention.scores) == 2 else ("Q",)
        if not attention.scores:
            yield candidate
            yield _exchanged(candidate, module)
            return
        for order in itertools.permutations(attention.scores):
            choices = [_fused_layouts(unit, 1, self.roles.width) for unit in order]
            for layouts in itertools.product(*choices):
                places = dict[str, Place]()
                for unit, letter, layout in zip(order, letters, layouts, strict=True):
                    places |= self._linear(unit, [f"{module}.fc{letter}"], layout)
                yield candidate.placed(places)

    # Layouts.

    def _orientations(self, pairs: Sequence[tuple[Unit, str]]) -> Iterator[dict[str, Place]]:
        """Modules as ours where they lie (out, in), and where they lie (in, out), if shapes fit."""
        for layout, axis in ((None, 0), ("(in, out)", 1)):
            places, fits = dict[str, Place](), True
            for unit, ours in pairs:
                out, inner = unit.weight.squeezed[axis], unit.weight.squeezed[1 - axis]
                wide = ours.endswith(("fc1", "fc3"))
                fits &= (inner if wide else out) == self.roles.width
                fits &= unit.bias is None or unit.bias.squeezed == (out,)
                places |= self._linear(unit, [ours], layout)
            if fits:
                yield places

    def _output_layouts(self, unit: Unit) -> list[str | None]:
        shape, width = unit.weight.squeezed, self.roles.width
        if unit.bias is not None and unit.bias.squeezed != (width,):
            return []
        if len(shape) == 3:
            return [OUTPUT_LAYOUTS[axis] for axis in range(3) if shape[axis] == width]
        layouts = (None, "(in, out)") if shape[0] == width else ("(in, out)",)
        biased = unit.bias is not None and unit.bias.squeezed == (width,)
        return [
            layout for layout in layouts if shape[0 if layout is None else 1] == width or not biased
        ]

    def _linear(self, unit: Unit, ours: Sequence[str], layout: str | None) -> dict[str, Place]:
        places: dict[str, Place] = {
            unit.weight.text: (tuple(f"{name}.weight" for name in ours), layout)
        }
        if unit.bias is not None:
            bias = _bias_layout(unit.bias, layout, len(ours))
            places[unit.bias.text] = tuple(f"{name}.bias" for name in ours), bias
        return places

    def _norm(self, unit: Unit, ours: str) -> dict[str, Place]:
        scale = self.roles.scales.get(unit.label, 0)
        found = dict[str, Place]()
        for k, pattern in enumerate(unit.patterns):
            single = not pattern.squeezed and self.roles.width > 1
            found[pattern.text] = (
                (f"{ours}.{'weight' if k == scale else 'bias'}",),
                "(one)" if single else None,
            )
        return found

    def _table_layout(self, text: str, ours: Sequence[str]) -> str | None:
        """Rows and width, or a product's axes, with axes of length 1 between them."""
        pattern, axis = self.probes.patterns[text], self.roles.axes[text]
        product = list(ours) == [OUTPUT]
        rows, width = ("out", "in") if product else ("rows", "width")
        words = [rows, width] if axis == 0 else [width, rows]
        if len(pattern.shape) == 2 and axis == 0:
            return None
        left = iter(words)
        axes = ["1" if length == 1 else next(left) for length in pattern.shape]
        return f"({', '.join(axes)})"

    # What is told by shapes.

    def _ties(self) -> str:
        shared = max(self.roles.tables.values(), key=len)
        ties = {
            frozenset((SOURCE, TARGET, OUTPUT)): "all",
            frozenset((TARGET, OUTPUT)): "target_output",
            frozenset((SOURCE, TARGET)): "source_target",
        }
        return ties.get(frozenset(shared), "none")

    def _heads_by_shape(self) -> tuple[int, ...]:
        """How many heads there may be: told, shown by a kernel, or what divides the width."""
        values = self.roles.decoder.attentions[0].values
        deep = [u.weight.squeezed for u in values if len(u.weight.squeezed) == 3]
        if deep:
            first, second, third = deep[0]
            return (second if first == self.roles.width else first,)
        if self.heads:
            return (self.heads,)
        width, shapes = self.roles.width, [set(u.weight.squeezed) for u in values]
        small = [s for s in shapes if len(s) == 1 and max(s) < width]
        if small:
            return (width // max(small[0]),)
        other = [n for s in shapes for n in s if n != width and n % width]
        whole = other[0] if other and not _is_fused(values, width) else width
        usual = dict.fromkeys((8, 4, 16, 2, *range(1, whole + 1)))
        return tuple(heads for heads in usual if whole % heads == 0)

    def _trained(self, text: str) -> bool:
        return set(self.probes.patterns[text].names) <= self.probes.subject.trained

    def _half(self, name: str) -> Half:
        return self.roles.encoder if name == "encoder" else self.roles.decoder

    def _matrices(self) -> list[Unit]:
        halves = (self.roles.encoder, self.roles.decoder)
        return [u for h in halves for u in [*h.ffn, *(v for a in h.attentions for v in a.units)]]

    def _has_norms_alive(self) -> bool:
        decoder = self.roles.decoder
        outside = decoder.final_norm or decoder.embedding_norm
        return outside is not None or self.roles.norm_position == "post"

    # The comparison.

    def _spread(self, choices: Callable[[Candidate], Offered]) -> None:
        found = [one for candidate in self.candidates for one in choices(candidate)]
        self.candidates = list(dict.fromkeys(found))

    def _agreeing(self, what: str, off: Names, shape: Shape, bound: float) -> list[Candidate]:
        """Keep the candidates whose logits are the module's with some of its tensors zero."""
        sizes = self._differences(self.candidates, off, shape)
        found = [c for c, size in zip(self.candidates, sizes, strict=True) if size <= bound]
        if not found:
            nearest = min(sizes, default=float("inf"))
            raise self.departure(what, len(sizes), nearest)
        if bound == EXACT:
            self.settled.append(what)
        self.candidates = found
        return found

    def _differences(
        self, candidates: Sequence[Candidate], off: Names, shape: Shape
    ) -> list[float]:
        """How far each candidate is from the module with some tensors zero."""
        weights, ids = self.probes.weights(off), self.probes.ids(shape)
        wanted = self.probes.logits(shape, off)
        return [self._distance(c, weights, (off, shape), ids, wanted) for c in candidates]

    def _distance(
        self, candidate: Candidate, weights: Mapping[str, np.ndarray], key: Any, ids: Any,
        wanted: np.ndarray,
    ) -> float:  # fmt: skip
        """How far a candidate is; one that no config can be is infinitely far."""
        try:
            return distance(wanted, self.twin.logits(candidate, weights, key, ids))
        except UserError as error:
            self.refused = str(error)
            return float("inf")

    def departure(self, what: str, count: int, nearest: float) -> Departure:
        if nearest == float("inf"):
            return Departure(f"{what}: no choice is a model of this kind: {self.refused}")
        before = f"; the same until then: {', '.join(self.settled)}" if self.settled else ""
        return Departure(
            f"{self.probes.subject.given} is no model of this kind: {what} departs first "
            f"({count} choices tried, the nearest {nearest:.1e} of the largest logit away){before}"
        )


def _exchanged(candidate: Candidate, module: str) -> Candidate:
    """Queries in place of keys, in a tensor that holds both."""
    swap = {f"{module}.fcQ": f"{module}.fcK", f"{module}.fcK": f"{module}.fcQ"}
    places = {
        text: (tuple(_renamed(name, swap) for name in ours), layout)
        for text, (ours, layout) in candidate.places
        if len(ours) > 1
    }
    return candidate.placed(places)


def _renamed(name: str, swap: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{swap.get(module, module)}.{leaf}"


def _is_fused(values: Sequence[Unit], width: int) -> bool:
    return any(max(u.weight.squeezed) in (2 * width, 3 * width) for u in values)


def _any(offered: Iterator[Candidate], units: Sequence[Unit], told: str) -> Candidate:
    """The first that is offered; matrices whose shapes fit none are a UserError."""
    found = next(offered, None)
    if found is None:
        listed = ", ".join(f"{unit.label} {list(unit.weight.shape)}" for unit in units)
        raise UserError(f"no encoder-decoder of this kind: {told}; here there are: {listed}")
    return found


def _fused_layouts(unit: Unit, count: int, width: int) -> list[str | None]:
    """How one tensor may hold ``count`` matrices of attention."""
    shape = unit.weight.squeezed
    if len(shape) == 3 and unit.bias is not None and len(unit.bias.squeezed) != 2:
        return []
    if len(shape) == 3:
        return [QUERY_LAYOUTS[axis] for axis in range(3) if shape[axis] == width]
    if count == 1:
        if shape[0] == shape[1] and shape[0] < width:
            return ["(block, block)"]
        rows, columns = (None,) * (shape[1] == width), ("(in, out)",) * (shape[0] == width)
        if unit.bias is not None and shape[0] != shape[1]:
            fits = unit.bias.squeezed == (shape[0],)
            return list(rows if fits else columns)
        return [*rows, *columns]
    found = list[str | None]()
    if shape[1] == width:
        found += ["(parts out, in)", "(heads parts dim, in)"]
    if shape[0] == width:
        found += ["(in, parts out)", "(in, heads parts dim)"]
    return found


def _bias_layout(bias: Pattern, layout: str | None, count: int) -> str | None:
    if layout == "(block, block)":
        return "(block)"
    if count > 1:
        return "(heads parts dim)" if HEADS_OF_PARTS in str(layout) else "(parts out)"
    return "(heads, dim)" if len(bias.squeezed) == 2 else None


def _between(value: Unit, layout: str | None, count: int, width: int) -> int | None:
    """The width of all heads that values give; None where blocks are shared."""
    shape = value.weight.squeezed
    if layout == "(block, block)":
        return None
    return int(np.prod(shape)) // width // count


def _taken(output: Unit, layout: str | None) -> int:
    """The width of all heads that an output takes."""
    shape = output.weight.squeezed
    if len(shape) == 3:
        at = OUTPUT_LAYOUTS.index(str(layout))
        return int(np.prod(shape)) // shape[at]
    return shape[1 if layout is None else 0]
