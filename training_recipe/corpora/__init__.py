"""Pairs of texts: files, tables, named corpora and the pronouncing dictionary."""
