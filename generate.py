"""Answer every sample of a file. ``generate.py --config FILE key=value …`` is ``pal generate``."""

import sys

from pal.cli import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
