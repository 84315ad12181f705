"""The container of ``torch.save``, of every version of PyTorch, read and written without torch."""
