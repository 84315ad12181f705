"""What searching for outputs means in both frameworks."""
