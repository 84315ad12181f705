"""Transformers of fairseq."""
