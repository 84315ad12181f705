"""python -m release: everything that is checked before a version is given away."""
