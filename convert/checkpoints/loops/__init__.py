"""States of training loops in JAX: where weights and moments are in them, and what is left out."""
