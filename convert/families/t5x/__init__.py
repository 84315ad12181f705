"""T5X: its names, and what its gin files say."""
