"""T5, mT5 and UMT5 of Hugging Face transformers, and the Flax twins of two of them."""
