"""Pairs of token ids into batches of few shapes."""
