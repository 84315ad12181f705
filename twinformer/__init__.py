"""One Transformer in PyTorch and in JAX, and the bridge between them."""
