"""What the model is: one config that both twins, the converter and the tests read.

A config says what a model *is*. Run modes (deterministic, decoding, number format) are call
arguments or training settings and never stand here.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, cast

from transformer_spec.declarations import declarations, setting, settle
from transformer_spec.errors import ConfigError, Faults, closest, printable_name
from transformer_spec.json_text import read_json_file

FORMAT_VERSION = 1
SECTIONS = ("format_version", "model", "tied_weights")

NORM_POSITIONS = ("pre", "post")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "gelu_sigmoid", "silu", "identity")
LEARNED = ("learned", "learned_after_norm")
STORED = (*LEARNED, "frozen")  # positions whose table is a weight
POSITIONS = ("sinusoidal", *STORED, "relative", "none")
NORMS = ("layer", "rms", "std")
SINUSOID_LAYOUTS = ("interleaved", "concatenated")
SINUSOID_FREQUENCIES = ("2i/d", "i/(d/2-1)")
OUTPUT_BIASES = ("none", "trained", "frozen")
TIED_EMBEDDINGS = ("none", "target_output", "source_target", "all")
RELATIVE = "relative"
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "final_dropout")
TOO_MANY_LAYERS = 10_000


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """An encoder-decoder Transformer (Vaswani et al. 2017, section 3) with its known variations.

    ``None`` stands for the derived default that the field's help names and is replaced when the
    config is made. All faults are raised together as one ``ConfigError``.
    """

    source_vocab_size: int = setting(
        "number of source tokens V_source; 0 where the source is features", least=0
    )
    target_vocab_size: int = setting("number of target tokens V_target", least=1)
    hidden_dim: int = setting("width D of every token's vector", least=1)
    inner_dim: int = setting("width F inside the feed-forward network", least=1)
    num_heads: int = setting("attention heads H", least=1)
    num_encoder_layers: int = setting("encoder layers", least=0, below=TOO_MANY_LAYERS)
    num_decoder_layers: int = setting("decoder layers", least=0, below=TOO_MANY_LAYERS)
    max_length: int = setting("longest sequence in tokens, source or target", least=1)
    norm_position: str = setting(
        "LayerNorm before each sub-layer (pre) or after its residual sum (post)",
        "post",
        choices=NORM_POSITIONS,
    )
    final_norm: bool = setting(
        "LayerNorm after the last layer of each half; default: only with pre", None
    )
    embedding_norm: bool = setting("LayerNorm on the sum of embedding and position", False)
    norm_epsilon: float = setting(
        "added to the variance in LayerNorm, to the deviation where norm is std", 1e-5, above=0
    )
    activation: str = setting("function inside the feed-forward", "relu", choices=ACTIVATIONS)
    encoder_positions: str = setting(
        "encoder position kind; learned_after_norm: added after the embedding norm, not before; "
        "frozen: a stored table that is never trained; relative: nothing is added to embeddings, "
        "self-attention adds a number to each score",
        "sinusoidal",
        choices=POSITIONS,
    )
    decoder_positions: str = setting(
        "decoder position kind, as the encoder's", "sinusoidal", choices=POSITIONS
    )
    sinusoid_layout: str = setting(
        "sine and cosine columns in turn, or all sines before all cosines",
        "interleaved",
        choices=SINUSOID_LAYOUTS,
    )
    sinusoid_frequency: str = setting(
        "exponent of 1/10000 in column pair i of width d", "2i/d", choices=SINUSOID_FREQUENCIES
    )
    position_offset: int = setting("position of the first token", 0, least=0)
    positions_skip_padding: bool = setting("count positions over non-padding tokens only", False)
    embedding_scale: float = setting("factor on embeddings; default: sqrt(D)", None, above=0)
    attention_scale: float = setting(
        "factor on attention scores; default: 1/sqrt(A)", None, above=0
    )
    attention_bias: bool = setting("biases in fcQ, fcK, fcV", True)
    ffn_bias: bool = setting("biases in fc1, fc2, fc3", True)
    output_bias: str = setting("bias of the output projection", "trained", choices=OUTPUT_BIASES)
    tied_embeddings: str = setting(
        "tables shared: target embedding with output projection, source with target embedding, or "
        "all three",
        "none",
        choices=TIED_EMBEDDINGS,
    )
    dropout: float = setting("dropout on embeddings and sub-layer outputs", 0.1, least=0, below=1)
    attention_dropout: float = setting("dropout on attention probabilities", 0.0, least=0, below=1)
    activation_dropout: float = setting(
        "dropout after the feed-forward activation", 0.0, least=0, below=1
    )
    pad_id: int = setting("padding token", 0, least=0)
    unk_id: int = setting("unknown token", 1, least=0)
    bos_id: int = setting("begin-of-sentence token", 2, least=0)
    eos_id: int = setting("end-of-sentence token", 3, least=0)
    decoder_start_id: int = setting(
        "first token fed to the decoder; default: bos_id", None, least=0
    )
    head_dim: int = setting("width A of one head; default: D/H, which must be whole", None, least=1)
    norm: str = setting(
        "kind of all norms; rms: the mean is not taken off and there is no bias; std: divided by "
        "the unbiased standard deviation plus norm_epsilon",
        "layer",
        choices=NORMS,
    )
    gated_ffn: bool = setting("fc2 is given activation(fc1 x) * fc3 x", False)
    relative_buckets: int = setting("rows R of a table of relative positions", 32, least=4)
    relative_max_distance: int = setting(
        "distance in tokens from which on all fall into the last bucket", 128, least=2
    )
    relative_per_layer: bool = setting(
        "a table of relative positions in every layer, not one for each half", False
    )
    output_scale: float = setting("factor on the states that are projected to logits", 1.0, above=0)
    final_dropout: float = setting("dropout after the final norms", 0.0, least=0, below=1)
    attention_output_bias: bool = setting("bias in fcOut; default: as attention_bias", None)
    dropout_after_norm: bool = setting(
        "with norm_position post: dropout on what the norm gives, not on sub-layer outputs", False
    )
    key_bias: bool = setting("bias in fcK; default: as attention_bias", None)
    feature_dim: int = setting(
        "numbers M in a frame of the source, which two convolutions take in the place of an "
        "embedding, the second at every other frame; 0: the source is tokens",
        0,
        least=0,
    )
    max_source_length: int = setting(
        "longest source in tokens, or in positions behind the convolutions; default: max_length",
        None,
        least=1,
    )

    def __post_init__(self) -> None:
        faults = Faults()
        if settle(self, DECLARATIONS, faults):
            _check_heads(self, faults)
            self._derive_defaults()
            _check_combinations(self, faults)
        faults.raise_if_any("invalid TransformerConfig", ConfigError)

    def _derive_defaults(self) -> None:
        divided = max(self.hidden_dim // max(self.num_heads, 1), 1)
        derived = {
            "final_norm": self.norm_position == "pre",
            "embedding_scale": math.sqrt(max(self.hidden_dim, 1)),
            "attention_scale": 1 / math.sqrt(self.head_dim or divided),
            "head_dim": divided,
            "decoder_start_id": self.bos_id,
            "attention_output_bias": self.attention_bias,
            "key_bias": self.attention_bias,
            "max_source_length": self.max_length,
        }
        for name, value in derived.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def heads_dim(self) -> int:
        """Width H x A of all heads side by side."""
        return self.num_heads * self.head_dim

    def longest(self, half: str) -> int:
        """The most positions that the ``encoder`` or the ``decoder`` has."""
        return self.max_source_length if half == "encoder" else self.max_length

    @property
    def drops_out(self) -> bool:
        """Whether any rate of dropout is above 0."""
        return any(getattr(self, name) > 0 for name in DROPOUTS)

    def to_dict(self) -> dict[str, Any]:
        """Every field, plain JSON types; of ``LATER`` ones those that differ from their default."""
        plain = {name: DECLARATIONS[name].default for name in LATER}
        plain["head_dim"] = self.hidden_dim / self.num_heads
        plain["attention_output_bias"] = plain["key_bias"] = self.attention_bias
        plain["max_source_length"] = self.max_length
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in plain or v != plain[k]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TransformerConfig":
        """The config of a mapping; unknown and missing keys are all named in one ConfigError."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        faults = Faults()
        for name in values.keys() - fields.keys():
            faults.add(f"unknown key {name!r}; allowed: {', '.join(fields)}")
        for name, field in fields.items():
            if field.default is dataclasses.MISSING and name not in values:
                faults.add(f"missing key {name!r} ({field.metadata['help']})")
        faults.raise_if_any("invalid TransformerConfig", ConfigError)
        return cls(**values)

    def save(self, path: Path) -> None:
        """Write config.json: format version, fields, tied weights (alias: kept name)."""
        from transformer_spec.inventory import tied_weights

        content = {
            "format_version": FORMAT_VERSION,
            "model": self.to_dict(),
            "tied_weights": tied_weights(self),
        }
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "TransformerConfig":
        """Read config.json; a damaged file or another format version is a ConfigError."""
        try:
            return cls.from_dict(_read_model_section(Path(path)))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}", error.faults) from None


def _read_model_section(path: Path) -> dict[str, Any]:
    try:
        content = cast(object, read_json_file(path))
    except FileNotFoundError:
        raise ConfigError("does not exist; a model folder has a config.json") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"is not readable JSON: {error}") from None
    sections = cast(dict[str, Any], content) if isinstance(content, dict) else {}
    model, given = sections.get("model"), sections.get("format_version")
    if not isinstance(model, dict):
        raise ConfigError("has no 'model' section; is it a twinformer config.json?")
    if given != FORMAT_VERSION:
        raise ConfigError(f"has format_version {given!r}; this program reads {FORMAT_VERSION}")
    faults = Faults()
    for name in sections.keys() - set(SECTIONS):
        faults.add(f"unknown key '{printable_name(name)}'{closest(name, SECTIONS)}")
    faults.raise_if_any(f"has more than {', '.join(SECTIONS)}", ConfigError)
    return cast(dict[str, Any], model)


DECLARATIONS = declarations(TransformerConfig)
# Fields that configs of format version 1 did not have at first: a model that has no use for them
# has the same config.json as ever.
LATER = (
    "head_dim",
    "norm",
    "gated_ffn",
    "relative_buckets",
    "relative_max_distance",
    "relative_per_layer",
    "output_scale",
    "final_dropout",
    "attention_output_bias",
    "dropout_after_norm",
    "key_bias",
    "feature_dim",
    "max_source_length",
)


def _check_combinations(config: TransformerConfig, faults: Faults) -> None:
    """Values that are fine alone and wrong together."""
    _check_sinusoids(config, faults)
    _check_relative(config, faults)
    _check_source(config, faults)
    _check_ids(config, faults)
    if config.norm == "std":
        faults.require(config.hidden_dim > 1, "norm 'std' needs hidden_dim >= 2, not 1")
    if config.norm_position == "pre":
        told = "dropout_after_norm is for norm_position 'post'; with 'pre' no norm ends a sub-layer"
        faults.require(not config.dropout_after_norm, told)
    if config.tied_embeddings in ("all", "source_target") and not config.feature_dim:
        faults.require(
            config.source_vocab_size == config.target_vocab_size,
            f"tied_embeddings is {config.tied_embeddings!r} but source_vocab_size "
            f"{config.source_vocab_size} differs from target_vocab_size {config.target_vocab_size}",
        )


def _check_source(config: TransformerConfig, faults: Faults) -> None:
    """A source is tokens, which have a table, or features, which have none."""
    size, ties = config.source_vocab_size, config.tied_embeddings
    if not config.feature_dim:
        faults.require(
            size > 0, "source_vocab_size is 0; it must be at least 1 without feature_dim"
        )
        return
    told = f"with feature_dim {config.feature_dim} the source has no tokens"
    faults.require(size == 0, f"source_vocab_size is {size}; {told}: it must be 0")
    faults.require(
        ties in ("none", "target_output"),
        f"tied_embeddings is {ties!r}; {told}: it must be 'none' or 'target_output'",
    )


def _check_heads(config: TransformerConfig, faults: Faults) -> None:
    """Heads whose width is not given share the model's."""
    D, H = config.hidden_dim, config.num_heads
    if not config.head_dim and D > 0 and H > 0:
        faults.require(D % H == 0, f"hidden_dim {D} is not divisible by num_heads {H}")


def _check_relative(config: TransformerConfig, faults: Faults) -> None:
    """Distances past the exact buckets need a logarithm whose base is above 1."""
    R, farthest = config.relative_buckets, config.relative_max_distance
    halves = {"encoder": R // 4, "decoder": R // 2}
    relative = [half for half in halves if getattr(config, f"{half}_positions") == RELATIVE]
    if relative:
        faults.require(R % 2 == 0, f"relative_buckets {R} is odd; half of them count exactly")
    for half in relative:
        faults.require(
            farthest > halves[half],
            f"relative_max_distance {farthest} is not above {halves[half]}, the first distance "
            f"that the {half} does not count exactly with relative_buckets {R}",
        )


def _check_sinusoids(config: TransformerConfig, faults: Faults) -> None:
    sinusoidal = "sinusoidal" in (config.encoder_positions, config.decoder_positions)
    if sinusoidal and config.sinusoid_frequency == "i/(d/2-1)":
        faults.require(
            config.hidden_dim >= 4,
            f"sinusoid_frequency 'i/(d/2-1)' needs hidden_dim >= 4, not {config.hidden_dim}",
        )


def _check_ids(config: TransformerConfig, faults: Faults) -> None:
    sizes = {"source": config.source_vocab_size, "target": config.target_vocab_size}
    if not config.source_vocab_size:
        del sizes["source"]
    sides = {
        "pad_id": ("source", "target"),
        "unk_id": ("source", "target"),
        "eos_id": ("source", "target"),
        "bos_id": ("target",),
        "decoder_start_id": ("target",),
    }
    for name, names_of_sides in sides.items():
        for side in sizes.keys() & names_of_sides:
            token, size = getattr(config, name), sizes[side]
            faults.require(
                token < size, f"{name} {token} is outside the {side} vocabulary of {size} tokens"
            )
    if config.pad_id == config.eos_id:
        faults.add(f"pad_id and eos_id are both {config.pad_id}; they must differ")
