"""What lies in another library's folder beside weights to turn text into ids: our vocabularies."""

from convert.tokenizers.listing import tokenizer_files
from convert.tokenizers.reading import read_vocabularies, usual_files

__all__ = ["read_vocabularies", "tokenizer_files", "usual_files"]
