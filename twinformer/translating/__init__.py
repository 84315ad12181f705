"""Texts in, texts out, and pictures of attention."""
