"""Tables of names: what a module of the user's calls its tensors, as data."""
