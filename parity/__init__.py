"""The proof that both twins are the same function."""
