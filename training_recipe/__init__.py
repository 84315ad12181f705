"""How a Transformer is trained, whatever the framework: NumPy and the standard library."""
