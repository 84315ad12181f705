"""Translate texts with a model of either framework: ``python translate.py --help``."""

import sys

from twinformer.commands.translate import main

if __name__ == "__main__":
    sys.exit(main())
