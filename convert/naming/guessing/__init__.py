"""What names, shapes and order of a state dict say of a table of names."""
