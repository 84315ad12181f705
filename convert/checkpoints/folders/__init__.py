"""Places of weights on disk and on the Hub: found, told apart, and the files in them named."""
