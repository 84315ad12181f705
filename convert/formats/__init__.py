"""One file per container; each reads lazily (``open_...``) and writes whole or not at all."""
