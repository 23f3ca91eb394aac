"""Answer every sample of a file. ``generate.py --config FILE key=value …`` is ``pal generate``."""

from pal.cli import run

if __name__ == "__main__":
    run("generate")
