"""One command a file: flags become a request, that one call, and its result is printed."""
