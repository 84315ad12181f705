"""Train a Transformer in JAX or PyTorch: ``python train.py --help``."""

import os
import signal
import sys

# What follows takes a while to import: until the command listens, Ctrl-C just ends it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))

from twinformer.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
