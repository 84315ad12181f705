"""The JAX programs for TPU chips that are not there: memory, cost, precision."""
