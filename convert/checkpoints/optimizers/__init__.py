"""The state of an optimizer beside weights: its form, whose moments are whose, its groups."""
