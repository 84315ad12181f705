"""Sound as a model hears it: files, rates, features of recordings; NumPy only."""
