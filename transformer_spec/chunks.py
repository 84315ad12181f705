"""How many tokens the loss projects to the vocabulary at once."""

CHUNK_NUMBERS = 2**22
FEWEST_TOKENS = 64


def chunk_tokens(tokens: int, vocab_size: int) -> int:
    """Tokens of a chunk: at most about 4 million logits, in chunks as equal as can be."""
    most = max(FEWEST_TOKENS, CHUNK_NUMBERS // vocab_size)
    chunks = max(1, -(-tokens // most))
    return -(-tokens // chunks)
