"""Speech as Whisper writes it: tokens, their tokenizer, what lies beside weights."""
