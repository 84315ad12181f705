"""Models of marian-nmt in its own files."""
