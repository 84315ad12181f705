"""Modules that hold a torch.nn.Transformer."""
