"""One file a command: flags into a request, one call, what is printed."""
