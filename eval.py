"""Score predictions and/or a model. ``eval.py --config FILE key=value …`` is ``pal eval``."""

import sys

from pal.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
