"""The only training loop: start, step, log, evaluate, save, resume, average, test."""
