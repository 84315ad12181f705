"""Marian's options (``special:model.yml``) as a config of ours.

What the options do was read from marian-dev: src/models/transformer.h, transformer_new.h,
encoder_decoder.cpp, tensors/cpu/tensor_operators.cpp (SinusoidalPositionEmbeddings).
"""

from __future__ import annotations

import math
from typing import Any

from convert.families.base import Reading, Settings, Source
from convert.families.given import with_flags
from convert.formats.flat_yaml import read_flat_yaml
from transformer_spec import TransformerConfig, UserError
from transformer_spec.strict import is_whole

OPTIONS = "special:model.yml"
MAX_LENGTH = 1000  # marian-decoder's own --max-length
ACTIVATIONS = {"swish": "silu", "relu": "relu", "gelu": "gelu_sigmoid"}
DROPOUTS = {
    "transformer-dropout": "dropout",
    "transformer-dropout-attention": "attention_dropout",
    "transformer-dropout-ffn": "activation_dropout",
}
# Dropout (d) does nothing after training: what is left says where norms (n) and sums (a) stand.
NORM_POSITIONS = {("", "an"): "post", ("n", "a"): "pre"}

# What Marian computes and no option says; the ids are those of every vocabulary that it makes.
MARIAN: dict[str, Any] = {
    "norm_epsilon": 1e-6,
    "sinusoid_layout": "concatenated",
    "sinusoid_frequency": "i/(d/2-1)",
    "position_offset": 0,
    "positions_skip_padding": False,
    "max_length": MAX_LENGTH,
    "eos_id": 0,
    "unk_id": 1,
    "bos_id": 0,
}
ASSUMED = (*MARIAN, *DROPOUTS.values())

# Options whose other values compute something that our model does not have, and what may stand.
ONLY: dict[str, tuple[Any, ...]] = {
    "type": ("transformer",),
    "transformer-ffn-depth": (2,),
    "transformer-decoder-ffn-depth": (0, 2),
    "transformer-decoder-autoreg": ("self-attention",),
    "transformer-no-projection": (False,),
    "transformer-no-bias": (False,),
    "transformer-no-affine": (False,),
    "transformer-pool": (False,),
    "transformer-train-position-embeddings": (False,),
    "transformer-train-positions": (False,),
    "transformer-disable-position-embeddings": (False,),
    "transformer-attention-mask": ("default",),
    "right-left": (False,),
    "ulr": (False,),
    "lemma-dim-emb": (0,),
    "lemma-dependency": ("",),
    "factors-combine": ("sum",),
    "factors-dim-emb": (0,),
    "special-vocab": ([],),
    "quantize-bits": (0, None),
}
# Options of other model types, of training, or of nothing at all.
HARMLESS = (
    "version", "dim-rnn", "enc-cell", "enc-cell-depth", "enc-type", "dec-cell",
    "dec-cell-base-depth", "dec-cell-high-depth", "skip", "layer-normalization",
    "transformer-rnn-projection", "transformer-dim-aan", "transformer-aan-depth",
    "transformer-aan-activation", "transformer-aan-nogate", "transformer-depth-scaling",
    "transformer-guided-alignment-layer", "transformer-alibi-shift", "transformer-alibi-trainable",
    "separator-symbol", "ulr-dim-emb", "ulr-trainable-transformation", "bert-train-type-embeddings",
    "bert-type-vocab-size", "max-length", "quantize-optimization-steps", "quantize-log-based",
    "quantize-biases", "quantize-range",
)  # fmt: skip
UNMAPPED = {
    "Wpos": "trained positions, which Marian adds to embeddings without a scale",
    "Wtype": "sentence types of a BERT model",
}
WITH_TABLES = "the options ask for it (tied-embeddings, -src, -all)"


def read_options(source: Source) -> dict[str, Any]:
    """The options inside the file; no text, or one that is no flat YAML, is a UserError."""
    label = f"{OPTIONS} of {source.tensors.label}"
    if OPTIONS not in source.tensors:
        raise UserError(f"{source.tensors.label} has no {OPTIONS}; without it nothing is known")
    array = source.tensors.read(OPTIONS)
    if array.dtype.itemsize != 1:
        raise UserError(f"{label} is {array.dtype}, not bytes of text")
    try:
        return read_flat_yaml(array.tobytes().rstrip(b"\0").decode("utf-8"), label)
    except UnicodeDecodeError as error:
        raise UserError(f"{label} is not UTF-8 text: {error}") from error


def reading_of(options: dict[str, Any], source: Source) -> Reading:
    """The config that options and flags say together; all faults in one UserError."""
    settings = Settings(options, source.ignored)
    sizes = _vocabularies(settings)
    fields = MARIAN | _sizes(settings, sizes) | _norms(settings) | _ties(settings, source, sizes)
    _check_rows(settings, source, sizes)
    fields["activation"] = _activation(settings)
    for theirs, ours in DROPOUTS.items():
        if settings.get(theirs) is not None:
            fields[ours] = settings.get(theirs)
    _check(settings)
    for name, what in UNMAPPED.items():
        if name in source.tensors:
            settings.faults.add(f"{name}: {what}; our model has no place for it")
    fields = with_flags(fields, source.flags, ASSUMED, settings.faults)
    settings.finish(f"the model in {source.tensors.label}")
    return Reading(
        TransformerConfig.from_dict(fields), settings.notes + _notes(fields, source, sizes)
    )


def _sizes(settings: Settings, sizes: tuple[int, int]) -> dict[str, Any]:
    """Both vocabularies are as long as the longer one, and a padding token more."""
    words = max(sizes)
    width, inner = settings.need("dim-emb"), settings.need("transformer-dim-ffn")
    settings.only("transformer-decoder-dim-ffn", None, 0, inner)
    if isinstance(width, int) and width % 2:
        settings.faults.add(f"dim-emb is {width}; Marian's positions need an even width")
    return {
        "source_vocab_size": words + 1,
        "target_vocab_size": words + 1,
        "pad_id": words,
        "decoder_start_id": words,
        "hidden_dim": width,
        "inner_dim": inner,
        "num_heads": settings.need("transformer-heads"),
        "num_encoder_layers": settings.need("enc-depth"),
        "num_decoder_layers": settings.need("dec-depth"),
        "embedding_scale": math.sqrt(width) if isinstance(width, int) and width > 0 else None,
    }


def _vocabularies(settings: Settings) -> tuple[int, int]:
    """Words of source and target, without the padding token that both are given."""
    sizes = settings.need("dim-vocabs")
    if isinstance(sizes, list) and len(sizes) == 2 and all(is_whole(x, 1) for x in sizes):
        return sizes[0], sizes[1]
    if sizes is not None:
        settings.faults.add(f"dim-vocabs is {sizes!r}; it must be two sizes, source and target")
    return 0, 0


def _norms(settings: Settings) -> dict[str, Any]:
    """Norm positions from the strings of operations: d dropout, a sum, n norm."""
    names = ("transformer-preprocess", "transformer-postprocess")
    before, after = (str(settings.need(name)) for name in names)
    position = NORM_POSITIONS.get((before.replace("d", ""), after.replace("d", "")))
    if position is None:
        settings.faults.add(
            f"{names[0]} {before!r} with {names[1]} {after!r} cannot be expressed; "
            "only '' with 'dan' (post-norm) and 'n' with 'da' (pre-norm) can"
        )
    if "d" in before or after not in ("dan", "da"):
        settings.notes.append(f"dropout goes after each sub-layer, not as in {before!r}, {after!r}")
    embedding = settings.only("transformer-postprocess-emb", "d", "", "n", "nd", default="d")
    top = settings.only("transformer-postprocess-top", "", "n", default="")
    return {
        "norm_position": position or "post",
        "final_norm": top == "n",
        "embedding_norm": "n" in str(embedding),
    }


def _ties(settings: Settings, source: Source, sizes: tuple[int, int]) -> dict[str, Any]:
    """Which tables are one, which Marian says with three options; the names must agree."""
    suffixes = ("-all", "-src", "")
    every, inputs, output = (
        settings.only(f"tied-embeddings{suffix}", True, False, default=False) is True
        for suffix in suffixes
    )
    shared, tied = every or inputs, every or output
    for name in ("Wemb",) if shared else ("encoder_Wemb", "decoder_Wemb"):
        there = name in source.tensors
        settings.faults.require(there, f"{name} is not in the file, and {WITH_TABLES}")
    if shared and sizes[0] != sizes[1]:
        told = f"dim-vocabs is {list(sizes)!r}, but one table serves both halves"
        settings.faults.add(f"{told}: {WITH_TABLES}")
    omitted = settings.only("output-omit-bias", True, False, default=False)
    unused = "frozen" if sizes[0] > sizes[1] else "none"
    return {
        "tied_embeddings": ("all" if shared else "target_output") if tied else "none",
        "output_bias": unused if omitted is True else "trained",
    }


def _check_rows(settings: Settings, source: Source, sizes: tuple[int, int]) -> None:
    """The tables have a row for each word."""
    for half, size in zip(("encoder", "decoder"), sizes, strict=True):
        for name in (f"{half}_Wemb", "Wemb"):
            shape = source.tensors[name].shape if name in source.tensors else (size,)
            if size and shape[:1] != (size,):
                settings.faults.add(f"{name} has shape {list(shape)}; dim-vocabs says {size} words")


def _activation(settings: Settings) -> str:
    name = settings.only("transformer-ffn-activation", *ACTIVATIONS, default="swish")
    return ACTIVATIONS.get(str(name), "silu")


def _check(settings: Settings) -> None:
    """Look at every option that is not mapped; one that is not there is as Marian has it."""
    for name, allowed in ONLY.items():
        if settings.get(name) is not None or name == "type":
            settings.only(name, *allowed)
    settings.only("transformer-tied-layers", None, [])
    kinds = settings.get("input-types") or []
    if any(kind != "sequence" for kind in kinds):
        settings.faults.add(f"input-types is {kinds!r}; only 'sequence' can be expressed")
    settings.ignore(HARMLESS)


def _notes(fields: dict[str, Any], source: Source, sizes: tuple[int, int]) -> list[str]:
    token = fields["pad_id"]
    notes = [f"token {token} is added: padding and start of the decoder, with zero embeddings"]
    for side, words in zip(("source", "target"), sizes, strict=True):
        never = ", and an output bias by which they are never chosen" * (side == "target")
        if words < token:
            notes.append(
                f"the {side} vocabulary has {words} words: ids {words} to {token - 1} are added, "
                f"for one padding token of both, with zero embeddings{never}"
            )
    if "max_length" not in source.flags:
        notes.append(f"max_length is {MAX_LENGTH}; Marian has no limit: --max-length gives another")
    if not {"norm_epsilon", "sinusoid_frequency"} & source.flags.keys():
        notes.append(
            "positions and LayerNorm epsilon are Marian's; the conversions of Hugging Face and "
            "CTranslate2 compute with --sinusoid-frequency 2i/d --norm-epsilon 1e-5"
        )
    return notes
