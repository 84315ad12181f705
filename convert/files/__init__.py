"""What lies beside the weights in a folder: which file is what, and what becomes of it."""
