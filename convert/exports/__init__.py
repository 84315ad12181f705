"""Libraries that our models can be written for and that are never read back."""
