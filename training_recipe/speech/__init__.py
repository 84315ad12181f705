"""Speech as Whisper takes it and writes it: sound, features, tokens, windows; no framework."""
