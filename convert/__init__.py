"""Checkpoints from anything to anything. NumPy only: a framework is never imported from here."""

from convert.twins import flax_to_torch, torch_to_flax

__all__ = ["flax_to_torch", "torch_to_flax"]
