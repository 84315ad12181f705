"""What is converted: its weights, whose it is, its config, and the names proposed for it."""
