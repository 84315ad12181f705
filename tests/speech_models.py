"""Random Whispers of a published vocabulary, small else, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from speech_tokenizers import write_json

SIZES: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_mel_bins": 5,
    "max_target_positions": 20,
}  # fmt: skip


def random_whisper(folder: Path, vocab_size: int, fresh: bool = False, **changes) -> Path:
    """A folder of the library's class, weights float32, with a tokenizer; nothing else beside.

    One that is ``fresh`` has the library's first weights, whose biases are all zero.
    """
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    end = 50256 + (vocab_size > 51864)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end)
    ids |= {"vocab_size": vocab_size, "decoder_start_token_id": end + 1}
    none: dict[str, Any] = dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"))
    torch.manual_seed(0)
    config = WhisperConfig(**(none | SIZES | ids | changes))
    model = WhisperForConditionalGeneration(config).eval()
    for tensor in () if fresh else model.parameters():
        torch.nn.init.normal_(tensor, 0, 0.3)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    return write_json(folder, vocab_size)
