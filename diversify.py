"""Make more training pairs out of what trained models say: ``python diversify.py --help``."""

import sys

from twinformer.commands.diversify import main

if __name__ == "__main__":
    sys.exit(main())
