"""A Whisper for CTranslate2 and faster-whisper: its ``WhisperSpec``, and what decoding needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

from convert.core.tensors import Tensors
from convert.exports.ctranslate2_model import check_installed, quantize, said_of, set_variable
from convert.families.ctranslate2_names import HALVES
from convert.families.whisper.openai import check_computed
from training_recipe.speech.alignment import alignment_heads, foreign_heads
from training_recipe.speech.settings import BLANK_ID
from training_recipe.speech.tokenizer import SpeechTokenizer, spelled
from training_recipe.speech.tokens import (
    SpeechTokens,
    suppressed,
    suppressed_first,
    suppressed_special,
)
from transformer_spec import Faults, TransformerConfig, UserError

NUMBERED = "its text tokens are numbers: {why}"
UNKNOWN_HEADS = (
    "alignment heads, from which times of words come: {why}; those of the last half of the "
    "decoder's layers are written, as CTranslate2's converter does"
)
USAGE = """\
to transcribe a recording with faster-whisper (its own search: beam_size=1, temperature=0 and
condition_on_previous_text=False come nearest to a greedy one):
from faster_whisper import WhisperModel
model = WhisperModel({folder!r}, compute_type="float32")
segments, _ = model.transcribe("recording.wav", beam_size=5{language})
for segment in segments:
    print(f"{{segment.start:.2f}} {{segment.end:.2f}} {{segment.text}}")"""
# Their name -> that of transformers' generation_config.json.
THEIRS = {
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
    "lang_ids": "lang_to_id",
    "alignment_heads": "alignment_heads",
}


@dataclass(frozen=True)
class SpeechModel:
    """The config, how tokens are spelled, what is never written, and how weights are stored.

    ``decoding`` is what config.json says, ``said`` is for the user.
    """

    config: TransformerConfig
    spelled: Sequence[str]
    decoding: Mapping[str, Any]
    quantization: str
    said: Sequence[str] = ()
    use: ClassVar[str] = "transcribes"

    @property
    def notes(self) -> list[str]:
        """What is to be known of the stored numbers before they are used elsewhere."""
        return [*said_of(self.quantization, "Whisper"), *self.said]

    def usage(self, folder: Path) -> str:
        several = SpeechTokens.of(self.config.target_vocab_size).multilingual
        language = "" if several else ', language="en"'
        return USAGE.format(folder=str(folder), language=language)

    def write(self, folder: Path, tensors: Tensors) -> None:
        """model.bin, config.json and vocabulary.json in an existing folder.

        CTranslate2's own code quantizes and writes; it holds the whole model in memory.
        """
        from ctranslate2.specs import WhisperSpec

        counts = (getattr(self.config, f"num_{half}_layers") for half in HALVES)
        heads = self.config.num_heads
        encoder, decoder = counts
        spec = WhisperSpec(encoder, heads, decoder, heads)
        for name in tensors:
            set_variable(spec, name, tensors.read(name))
        spec.register_vocabulary(list(self.spelled))
        for name, value in self.decoding.items():
            setattr(spec.config, name, value)
        spec.validate()
        quantize(spec, self.quantization)
        spec.save(str(folder))


def prepare_speech(
    config: TransformerConfig,
    tokenizer: Callable[[], SpeechTokenizer],
    given: Mapping[str, Any],
    quantization: str,
) -> SpeechModel:
    """Check everything but the tensors; all that forbids the export is one UserError.

    ``tokenizer`` reads it, or says why there is none. ``given`` is what the model was published
    with, in the words of CTranslate2's config.json or of transformers' generation_config.json.
    """
    check_installed()
    faults = Faults()
    check_computed(config, "CTranslate2's Whisper", faults)
    for half in HALVES:
        name = f"num_{half}_layers"
        count = getattr(config, name)
        faults.require(count >= 1, f"{name} is {count}; CTranslate2 needs at least 1")
    tokens = _tokens(config, faults)
    faults.raise_if_any("this model cannot be written for CTranslate2")
    assert tokens is not None
    heads, said = _alignment(config, given)
    decoding = _published(given) | {"alignment_heads": heads}
    try:
        found = tokenizer()
    except UserError as error:
        decoding = _usual(tokens, None) | decoding
        told = [*said, NUMBERED.format(why=error)]
        return SpeechModel(config, spelled(tokens, {}), decoding, quantization, told)
    decoding = _usual(tokens, found) | decoding
    return SpeechModel(config, found.spelled(), decoding, quantization, said)


def _tokens(config: TransformerConfig, faults: Faults) -> SpeechTokens | None:
    try:
        return SpeechTokens.of(config.target_vocab_size)
    except UserError as error:
        faults.take(error)
        return None


def _published(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a model was published with, in the words of CTranslate2."""
    found = {ours: given.get(ours, given.get(theirs)) for ours, theirs in THEIRS.items()}
    if isinstance(found["lang_ids"], Mapping):
        found["lang_ids"] = sorted(found["lang_ids"].values())
    return {name: value for name, value in found.items() if value is not None}


def _usual(tokens: SpeechTokens, tokenizer: SpeechTokenizer | None) -> dict[str, Any]:
    """What follows from the vocabulary; without a tokenizer, of tokens of text nothing does."""
    found: dict[str, Any] = {"lang_ids": [tokens.language(code) for code in tokens.languages]}
    if tokenizer is None:
        never = list(suppressed_special(tokens))
        return found | {"suppress_ids": never, "suppress_ids_begin": [BLANK_ID, tokens.end]}
    encode = tokenizer.encode
    return found | {
        "suppress_ids": list(suppressed(tokens, encode)),
        "suppress_ids_begin": list(suppressed_first(tokens, encode)),
    }


def _alignment(
    config: TransformerConfig, given: Mapping[str, Any]
) -> tuple[list[list[int]], list[str]]:
    """The heads (layer, head) of which times of words come, and what is to be said of them."""
    layers, heads = config.num_decoder_layers, config.num_heads
    known = given.get("alignment_heads") or alignment_heads(config) or []
    if known and not foreign_heads(known, config):
        return [list(pair) for pair in known], []
    why = "those that are given are of other layers or heads" if known else "none are given"
    found = [list(pair) for pair in product(range(layers // 2, layers), range(heads))]
    return found, [UNKNOWN_HEADS.format(why=why)]
