"""One file a command: flags to a request, one call, and what is printed."""
