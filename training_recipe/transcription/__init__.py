"""Recordings to transcripts, window after window, whatever framework the model is of."""
