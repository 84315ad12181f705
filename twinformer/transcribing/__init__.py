"""Transcriber: recordings in, transcripts out; and the files that transcripts are written to."""
