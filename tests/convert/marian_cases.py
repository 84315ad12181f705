"""Random models as Marian's files hold them."""

from dataclasses import dataclass

import numpy as np
from family_checks import source_of

OPTIONS = "special:model.yml"
TOP = {"max_length": 24}
HUGGING_FACE = {"norm_epsilon": 1e-5, "sinusoid_frequency": "2i/d"}

# What marian-dev 1.11 and 1.12 save beside what a case says.
USUAL_OPTIONS = {
    "bert-train-type-embeddings": True,
    "bert-type-vocab-size": 2,
    "dec-cell": "gru",
    "dec-cell-base-depth": 2,
    "dec-cell-high-depth": 1,
    "dim-rnn": 1024,
    "enc-cell": "gru",
    "enc-cell-depth": 1,
    "enc-type": "bidirectional",
    "factors-combine": "sum",
    "factors-dim-emb": 0,
    "input-types": [],
    "layer-normalization": False,
    "lemma-dependency": "",
    "lemma-dim-emb": 0,
    "right-left": False,
    "separator-symbol": "[eos]",
    "skip": False,
    "special-vocab": [],
    "transformer-aan-activation": "swish",
    "transformer-aan-depth": 2,
    "transformer-aan-nogate": False,
    "transformer-alibi-shift": False,
    "transformer-alibi-trainable": False,
    "transformer-attention-mask": "default",
    "transformer-decoder-autoreg": "self-attention",
    "transformer-decoder-dim-ffn": 0,
    "transformer-decoder-ffn-depth": 0,
    "transformer-dim-aan": 2048,
    "transformer-disable-position-embeddings": False,
    "transformer-ffn-depth": 2,
    "transformer-guided-alignment-layer": "last",
    "transformer-no-affine": False,
    "transformer-no-bias": False,
    "transformer-no-projection": False,
    "transformer-pool": False,
    "transformer-rnn-projection": False,
    "transformer-tied-layers": [],
    "transformer-train-position-embeddings": False,
    "type": "transformer",
    "ulr": False,
    "ulr-dim-emb": 0,
    "ulr-trainable-transformation": False,
    "version": "v1.11.0 f00d0621 2022-02-08 08:39:24 -0800",
}


@dataclass(frozen=True)
class Case:
    """A model of Marian's; sizes have no common factor but the heads and the width."""

    words: int = 13
    heads: int = 3
    width: int = 18
    inner: int = 7
    encoder: int = 2
    decoder: int = 3
    tied: tuple[str, ...] = ("-all",)
    activation: str = "swish"
    pre: bool = False
    top: str = ""
    emb: str = "d"
    omit_bias: bool = False
    output: str = "W"
    target_words: int = 0  # where it is not ``words``

    @property
    def targets(self) -> int:
        return self.target_words or self.words

    @property
    def token(self) -> int:
        """The padding token, of both vocabularies."""
        return max(self.words, self.targets)

    @property
    def shared(self) -> bool:
        return "-all" in self.tied or "-src" in self.tied

    @property
    def own_output(self) -> bool:
        return not {"-all", ""} & set(self.tied)

    def options(self) -> dict:
        return USUAL_OPTIONS | {
            "dim-vocabs": [self.words, self.targets],
            "dim-emb": self.width,
            "transformer-dim-ffn": self.inner,
            "transformer-heads": self.heads,
            "enc-depth": self.encoder,
            "dec-depth": self.decoder,
            **{f"tied-embeddings{x}": x in self.tied for x in ("-all", "-src", "")},
            "transformer-ffn-activation": self.activation,
            "transformer-preprocess": "n" if self.pre else "",
            "transformer-postprocess": "da" if self.pre else "dan",
            "transformer-postprocess-top": self.top,
            "transformer-postprocess-emb": self.emb,
            "output-omit-bias": self.omit_bias,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Random weights under Marian's names, float32 as its files are."""
        draw = np.random.default_rng(7)
        shapes = self.shapes().items()
        arrays = {n: draw.normal(0, 0.4, shape).astype(np.float32) for n, shape in shapes}
        return arrays | {OPTIONS: as_text(self.options())}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        V, D, F = self.targets, self.width, self.inner
        tables = {"Wemb": V} if self.shared else {"encoder_Wemb": self.words, "decoder_Wemb": V}
        shapes: dict[str, tuple[int, ...]] = {name: (rows, D) for name, rows in tables.items()}
        if self.own_output:
            output = {"W": (D, V), "Wt": (V, D)}[self.output]
            shapes[f"decoder_ff_logit_out_{self.output}"] = output
        if not self.omit_bias:
            shapes["decoder_ff_logit_out_b"] = (1, V)
        pre = "_pre" if self.pre else ""
        for half, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            norms = [f"{half}_top_ln_{{}}"] * bool(self.top)
            norms += [f"{half}_emb_ln_{{}}_pre"] * ("n" in self.emb)
            for i in range(1, layers + 1):
                attentions = ("self",) if half == "encoder" else ("self", "context")
                for name in (f"{half}_l{i}_{attention}" for attention in attentions):
                    shapes |= {f"{name}_W{x}": (D, D) for x in "qkvo"}
                    shapes |= {f"{name}_b{x}": (1, D) for x in "qkvo"}
                    norms.append(f"{name}_Wo_ln_{{}}{pre}")
                ffn = f"{half}_l{i}_ffn"
                shapes |= {f"{ffn}_W1": (D, F), f"{ffn}_b1": (1, F)}
                shapes |= {f"{ffn}_W2": (F, D), f"{ffn}_b2": (1, D)}
                norms.append(f"{ffn}_ffn_ln_{{}}{pre}")
            shapes |= {norm.format(x): (1, D) for norm in norms for x in ("scale", "bias")}
        return shapes


CASES = {
    "post swish, all tied": Case(),
    "post gelu, target tied": Case(activation="gelu", tied=("",), encoder=1, width=30, words=11),
    "post relu, nothing tied": Case(activation="relu", tied=(), decoder=1),
    "post, inputs tied, newer output": Case(tied=("-src",), output="Wt", omit_bias=True),
    "post, inputs and output tied": Case(tied=("-src", ""), heads=2, width=14),
}
TWO_SIZES = {
    "more target words": Case(tied=("",), target_words=17),
    "more target words, newer output": Case(tied=(), target_words=14, output="Wt"),
    "more source words": Case(tied=("",), target_words=11),
    "more source words, no bias": Case(tied=(), target_words=7, omit_bias=True),
}
PRE_NORM = {
    "pre with final norm": Case(pre=True, top="n", tied=("-all",)),
    "pre with embedding norm": Case(pre=True, top="n", emb="nd", tied=(), activation="gelu"),
    "pre without final norm": Case(pre=True, emb="", activation="relu", omit_bias=True),
    "post with both norms": Case(top="n", emb="n", tied=("",)),
}


def as_text(options: dict) -> np.ndarray:
    """The bytes that Marian's YAML emitter would write, and the zero byte after them."""

    def scalar(value) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        plain = str(value) and not str(value).startswith("[")
        return str(value) if plain else f'"{value}"'

    lines = []
    for key, value in sorted(options.items()):
        if isinstance(value, list):
            lines += [f"{key}:", *(f"  - {scalar(x)}" for x in value)] + ["  []"] * (not value)
        else:
            lines.append(f"{key}: {scalar(value)}")
    return np.frombuffer("\n".join(lines).encode() + b"\0", np.int8)


def source(case: Case, flags: dict | None = None, arrays: dict | None = None, **options):
    """A source of a case, its options or its arrays changed."""
    arrays = case.arrays() if arrays is None else arrays
    if options:
        changed = case.options() | {k.replace("_", "-"): v for k, v in options.items()}
        arrays[OPTIONS] = as_text({k: v for k, v in changed.items() if v is not None})
    return source_of(arrays, flags=TOP if flags is None else flags)
