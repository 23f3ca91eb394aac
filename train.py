"""Train PAL or the extractor. ``train.py --config FILE key=value …`` is ``pal train``."""

import sys

from pal.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
