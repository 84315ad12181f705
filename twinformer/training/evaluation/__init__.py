"""How good a model is: loss, scores, collapse, and what the log says of them."""
