"""Train a Transformer in JAX or PyTorch: ``python train.py --help``."""

import sys

from twinformer.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
