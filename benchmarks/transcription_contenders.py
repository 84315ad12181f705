"""What benchmarks/transcribe.py compares: greedy transcription by the same weights."""

from __future__ import annotations

import functools
import shutil
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.outside_training import torch_threads
from benchmarks.turns import JAX, TORCH, Turn, use_cores
from training_recipe.sound.audio import Audio
from training_recipe.sound.features import RATE

GENERATE, OPENAI = "transformers generate", "openai-whisper"
FASTER, FASTER_INT8 = "faster-whisper", "faster-whisper, int8"
SILENCE = RATE // 2
Transcribe = Callable[[Path], str]


def make(name: str, task: dict[str, Any]) -> tuple[str, Turn]:
    """Version and turn of a contender; turn n transcribes the n-th part of the sound."""
    place = Path(task["place"])
    version, transcribe = CONTENDERS[name](place, task["threads"])

    def turn(number: int) -> dict[str, Any]:
        part = place / f"part-{max(number - 1, 0)}.wav"
        text = " ".join(transcribe(part).split())
        with wave.open(str(part)) as file:
            seconds = file.getnframes() / file.getframerate()
        return {"text": text, "done": {"audio_seconds": seconds}}

    return version, turn


def write_parts(place: Path, recordings: Sequence[Path], seconds: int, parts: int) -> None:
    """WAV files of equal length, together so many seconds, of recordings behind each other."""
    spoken = [part for path in recordings for part in (*Audio(path).blocks(), np.zeros(SILENCE))]
    whole, count = np.concatenate(spoken), seconds * RATE // parts
    for number in range(parts):
        taken = np.take(whole, np.arange(number * count, (number + 1) * count), mode="wrap")
        with wave.open(str(place / f"part-{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((np.clip(taken, -1, 1) * 32767).astype("<i2").tobytes())


def write_models(place: Path, model: Path, names: list[str]) -> None:
    """The same weights as each of the programs reads them."""
    from convert.__main__ import main as convert

    shutil.copytree(model, place / "ctranslate2")
    for folder, family in (("theirs", "whisper"), ("openai", "whisper-openai")):
        if folder == "theirs" or OPENAI in names:
            convert([str(model), str(place / folder), "--to", family, "--dtype", "float32"])


def ours(place: Path, backend: str) -> Transcribe:
    from twinformer import Transcriber

    transcriber = Transcriber(place / "ctranslate2", backend=backend)
    english = {"language": "en"} if transcriber.tokens.multilingual else {}

    def transcribe(part: Path) -> str:
        return transcriber(part, timestamps=True, temperatures=(0.0,), **english).text

    return transcribe


def jax_model(place: Path, threads: int) -> tuple[str, Transcribe]:
    use_cores(threads)
    import jax

    return f"jax {jax.__version__}", ours(place, "jax")


def torch_model(place: Path, threads: int) -> tuple[str, Transcribe]:
    return torch_threads(threads), ours(place, "torch")


def samples(part: Path) -> np.ndarray:
    return np.concatenate([*Audio(part).blocks()]).astype(np.float32)


def generate(place: Path, threads: int) -> tuple[str, Transcribe]:
    """The library's own sequential rule for sound of any length."""
    torch_threads(threads)
    import transformers

    processor: Any = transformers.WhisperProcessor.from_pretrained(place / "theirs")
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(place / "theirs")
    asked = {"return_timestamps": True, "condition_on_prev_tokens": False}
    if model.generation_config.is_multilingual:
        asked |= {"language": "en", "task": "transcribe"}

    def transcribe(part: Path) -> str:
        given = processor(
            samples(part), sampling_rate=RATE, return_tensors="pt", truncation=False,
            padding="longest", return_attention_mask=True,
        )  # fmt: skip
        found = model.generate(given.input_features, attention_mask=given.attention_mask, **asked)
        return processor.batch_decode(found, skip_special_tokens=True)[0]

    return f"transformers {transformers.__version__}", transcribe


def faster(place: Path, threads: int, compute: str = "float32") -> tuple[str, Transcribe]:
    import faster_whisper

    model = faster_whisper.WhisperModel(
        str(place / "ctranslate2"), device="cpu", compute_type=compute, cpu_threads=threads
    )

    def transcribe(part: Path) -> str:
        segments, _ = model.transcribe(
            str(part), language="en", beam_size=1, temperature=0.0,
            condition_on_previous_text=False, no_speech_threshold=None,
        )  # fmt: skip
        return " ".join(segment.text for segment in segments)

    return f"faster-whisper {faster_whisper.__version__}", transcribe


def openai(place: Path, threads: int) -> tuple[str, Transcribe]:
    torch_threads(threads)
    import whisper

    model = whisper.load_model(str(next((place / "openai").glob("*.pt"))), device="cpu")

    def transcribe(part: Path) -> str:
        return model.transcribe(
            samples(part), language="en", fp16=False, temperature=0.0,
            condition_on_previous_text=False, no_speech_threshold=None,
        )["text"]  # fmt: skip

    return f"openai-whisper {whisper.__version__}", transcribe


CONTENDERS: dict[str, Callable[[Path, int], tuple[str, Transcribe]]] = {
    JAX: jax_model,
    TORCH: torch_model,
    GENERATE: generate,
    FASTER: faster,
    FASTER_INT8: functools.partial(faster, compute="int8"),
    OPENAI: openai,
}
USUAL = list(CONTENDERS)
MODULES = {
    GENERATE: "transformers",
    FASTER: "faster_whisper",
    FASTER_INT8: "faster_whisper",
    OPENAI: "whisper",
}
