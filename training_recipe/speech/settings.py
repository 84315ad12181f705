"""What lies beside a Whisper's weights in a folder of Hugging Face transformers, by rule.

Both files follow from the vocabulary's size and the numbers in a frame. They are written where a
model comes without them; those that are there stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training_recipe.sound.features import FRAMES, FRAMES_A_SECOND, HOP, RATE, WINDOW
from training_recipe.speech.tokens import LATEST_FIRST, TASKS, SpeechTokens

BLANK_ID = 220  # a space, in every vocabulary of GPT-2's
LONGEST = 448  # tokens of an output, its prompt among them
SECONDS = FRAMES // FRAMES_A_SECOND  # of a window


def generation_settings(
    tokens: SpeechTokens,
    suppressed: Sequence[int] | None,
    alignment_heads: Sequence[Sequence[int]] | None,
) -> dict[str, Any]:
    """generation_config.json: how ``generate`` writes what OpenAI's own program does.

    Without the ``suppressed`` ids, which a tokenizer tells (tokens.py), and without
    ``alignment_heads`` their keys are left out. No ids are forced: the language is the caller's.
    The task is said, as ``generate`` would write none, which no model has learnt.
    """
    found: dict[str, Any] = {
        "decoder_start_token_id": tokens.start,
        "bos_token_id": tokens.end,
        "eos_token_id": tokens.end,
        "pad_token_id": tokens.end,
        "begin_suppress_tokens": [BLANK_ID, tokens.end],
        "no_timestamps_token_id": tokens.no_timestamps,
        "prev_sot_token_id": tokens.start_of_previous,
        "max_initial_timestamp_index": LATEST_FIRST,
        "max_length": LONGEST,
        "return_timestamps": False,
        "is_multilingual": tokens.multilingual,
    }
    if suppressed is not None:
        found["suppress_tokens"] = list(suppressed)
    if alignment_heads is not None:
        found["alignment_heads"] = [list(pair) for pair in alignment_heads]
    if tokens.multilingual:
        codes = {f"<|{code}|>": tokens.language(code) for code in tokens.languages}
        found |= {"lang_to_id": codes, "task_to_id": {name: tokens.task(name) for name in TASKS}}
        found["task"] = "transcribe"
    return found


def preprocessor_settings(mel_bins: int) -> dict[str, Any]:
    """preprocessor_config.json: the features of sound, so many numbers in a frame."""
    samples = RATE * SECONDS
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": mel_bins,
        "sampling_rate": RATE,
        "n_fft": WINDOW,
        "hop_length": HOP,
        "chunk_length": SECONDS,
        "n_samples": samples,
        "nb_max_frames": samples // HOP,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "dither": 0.0,
    }
