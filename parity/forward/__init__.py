"""What a model computes on its way to its logits, in either framework, and how to measure it."""
