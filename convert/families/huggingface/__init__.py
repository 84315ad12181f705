"""Marian, BART, mBART and M2M100 as Hugging Face transformers stores them, PyTorch and Flax."""
