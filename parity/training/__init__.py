"""The same training in both frameworks, step by step."""
