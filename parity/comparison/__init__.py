"""The comparison of two models, its report, and why they differ."""
