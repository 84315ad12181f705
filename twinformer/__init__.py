"""One Transformer in PyTorch and in JAX, and the bridge between them.

    import twinformer

    twinformer.convert("opus-mt-en-de", "mine", to="flax")
    model = twinformer.load("mine", backend="jax")
    translate = twinformer.Translator("runs/demo"); translate(["a text"])
    transcribe = twinformer.Transcriber("whisper-base"); transcribe("talk.wav").text
    report = twinformer.compare("opus-mt-en-de", "mine")
    run = twinformer.train(data="pairs.csv", columns=("Q", "A"), steps=2000)

Neither framework is imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training_recipe.transcription.transcripts import Segment, Transcript
    from transformer_spec import TransformerConfig, UserError
    from twinformer.api import compare, convert, load, train
    from twinformer.transcribing.transcriber import Transcriber
    from twinformer.translating.translator import Translation, Translator

    __version__: str

__all__ = [
    "Segment",
    "Transcriber",
    "Transcript",
    "TransformerConfig",
    "Translation",
    "Translator",
    "UserError",
    "__version__",
    "compare",
    "convert",
    "load",
    "train",
]

PLACES = {
    "TransformerConfig": "transformer_spec",
    "UserError": "transformer_spec",
    **dict.fromkeys(("Segment", "Transcript"), "training_recipe.transcription.transcripts"),
    "Transcriber": "twinformer.transcribing.transcriber",
    "Translation": "twinformer.translating.translator",
    "Translator": "twinformer.translating.translator",
    **dict.fromkeys(("compare", "convert", "load", "train"), "twinformer.api"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("twinformer")
    if name not in PLACES:
        raise AttributeError(f"module 'twinformer' has no attribute {name!r}")
    return getattr(importlib.import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
