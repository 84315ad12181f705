"""How many tokens the loss projects to the vocabulary at once."""

CHUNK_NUMBERS = 2**22


def chunk_tokens(tokens: int, vocab_size: int) -> int:
    """Tokens of a chunk: about 4 million logits, or everything where that is less."""
    return min(tokens, max(64, CHUNK_NUMBERS // vocab_size))
