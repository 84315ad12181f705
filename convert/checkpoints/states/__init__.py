"""Weights in what was saved: inside a larger state, wrapped, copied, or in another form."""
