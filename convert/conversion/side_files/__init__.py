"""Files beside the weights: those that are carried, and those that are made of others."""
