"""The two models of a comparison: twins, classes of transformers, code of the user's own."""
