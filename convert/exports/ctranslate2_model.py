"""A model for CTranslate2: what is decided before a tensor is read, and the files of its folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from convert.core.tensors import Tensors
from convert.exports.ctranslate2_tokens import Tokens, tokens_of
from convert.exports.ctranslate2_usage import usage
from convert.families.ctranslate2_names import check_expressible, is_relative, scalars
from training_recipe.searching.search import Search
from training_recipe.text.model_vocabularies import Pair
from transformer_spec import Faults, TransformerConfig, UserError

LIBRARY = "ctranslate2"
QUANTIZATIONS = (
    "float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16",
    "int8_bfloat16",
)  # fmt: skip
# What a translator does with such weights depends on the processor that it runs on.
EXACT = '{loaded}(..., compute_type="float32") computes with what is stored on every processor'
ELSEWHERE = {
    "int16": "CTranslate2 has products of int16 only in Intel's library MKL, which it uses on "
    "Intel's processors; on others it makes these weights int8 when it loads them, with a warning, "
    f"and computes as an int8 model does. {EXACT}",
    "int8": "on processors without VNNI instructions, where CTranslate2 does not use Intel's "
    "library MKL, sums inside products of int8 are cut off at 16 bits, and outputs differ "
    f"more than by rounding. {EXACT}",
}
# Our activation -> the member of ctranslate2.specs.Activation; identity is a gate of relu.
ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_tanh": "GELUTanh",
    "gelu_sigmoid": "GELUSigmoid",
    "silu": "SWISH",
    "identity": "RELU",
}


@dataclass(frozen=True)
class CTranslate2Model:
    """The config, the token strings, and how CTranslate2 is to store the weights.

    ``search`` is what the model was published with, ``no_text`` why its tokens are numbers.
    """

    config: TransformerConfig
    tokens: Tokens
    quantization: str
    search: Search | None = None
    no_text: str = ""
    use: ClassVar[str] = "translates"

    @property
    def notes(self) -> list[str]:
        """What is to be known of the stored numbers before they are used elsewhere."""
        notes = said_of(self.quantization, "Translator")
        return notes + ([f"its tokens are numbers: {self.no_text}"] if self.no_text else [])

    def usage(self, folder: Path) -> str:
        return usage(self.config, self.tokens, folder, self.search)

    def write(self, folder: Path, tensors: Tensors) -> None:
        """model.bin, config.json and the vocabularies in an existing folder.

        ``tensors`` are float32 under the names of ``ctranslate2_rules``. CTranslate2's own code
        quantizes and writes; it holds the whole model in memory.
        """
        spec = _specification(self.config)
        for name, value in scalars(self.config).items():
            set_variable(spec, name, value)
        for name in tensors:
            set_variable(spec, name, tensors.read(name))
        spec.register_source_vocabulary(self.tokens.source)
        spec.register_target_vocabulary(self.tokens.target)
        spec.config.layer_norm_epsilon = self.config.norm_epsilon
        for name, value in self.tokens.settings(self.config, self.search).items():
            setattr(spec.config, name, value)
        spec.validate()
        quantize(spec, self.quantization)
        spec.save(str(folder))


def said_of(quantization: str, loaded: str) -> list[str]:
    """What is to be known of the numbers in a file; ``loaded`` is the class that loads it."""
    kind = quantization.partition("_")[0]
    return [f"{quantization}: {ELSEWHERE[kind]}".format(loaded=loaded)] if kind in ELSEWHERE else []


def check_installed() -> None:
    """UserError where CTranslate2 is not there."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise UserError(
            "writing for CTranslate2 needs its library: pip install 'twinformer[ctranslate2]'"
        )


def prepare(
    config: TransformerConfig,
    text: Callable[[], tuple[Pair | None, str]],
    search: Search | None,
    quantization: str,
) -> CTranslate2Model:
    """Check everything but the tensors; all that forbids the export is one UserError.

    ``text`` reads the vocabularies, or says why there are none.
    """
    check_installed()
    faults, tokens, no_text = Faults(), Tokens([], []), ""
    check_expressible(config, faults)
    try:
        pair, no_text = text()
        tokens = tokens_of(config, pair)
    except UserError as error:
        faults.take(error)
    faults.raise_if_any("this model cannot be written for CTranslate2")
    return CTranslate2Model(config, tokens, quantization, search, no_text)


def _specification(config: TransformerConfig) -> Any:
    """An empty TransformerSpec: final norms come with ``pre_norm``, which is set afterwards."""
    from ctranslate2.specs import TransformerSpec
    from ctranslate2.specs.transformer_spec import TransformerDecoderSpec, TransformerEncoderSpec

    return TransformerSpec(
        TransformerEncoderSpec(**_parts(config, "encoder")),
        TransformerDecoderSpec(**_parts(config, "decoder")),
    )


def _parts(config: TransformerConfig, half: str) -> dict[str, Any]:
    """What one half of the specification is told."""
    from ctranslate2.specs.common_spec import Activation

    usual = config.heads_dim == config.hidden_dim
    return {
        "num_layers": getattr(config, f"num_{half}_layers"),
        "num_heads": config.num_heads,
        "relative_attention_bias": is_relative(config, half),
        "no_final_norm": not config.final_norm,
        "activation": Activation[ACTIVATIONS[config.activation]],
        "ffn_glu": config.gated_ffn or config.activation == "identity",
        "rms_norm": config.norm == "rms",
        "layernorm_embedding": config.embedding_norm,
        "head_dim": None if usual else config.head_dim,
    }


def set_variable(spec: Any, name: str, value: Any) -> None:
    """Set one variable by the name that it has in the file."""
    from ctranslate2.specs.model_spec import index_spec

    place, _, leaf = name.rpartition("/")
    setattr(index_spec(spec, place), leaf, value)


def quantize(spec: Any, quantization: str) -> None:
    """Tie equal variables and store them as asked; CTranslate2 rounds to bfloat16 by PyTorch."""
    try:
        spec.optimize(quantization=quantization)
    except RuntimeError as error:
        raise UserError(
            f"--quantization {quantization}: {error}; pip install 'twinformer[torch]', or choose "
            "another"
        ) from None
