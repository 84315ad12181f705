"""Whisper's files of three programs: speech in, text out."""
