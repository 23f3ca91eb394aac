"""Answer every sample of a file. ``generate.py --config FILE key=value …`` is ``pal generate``."""

from pal.cli import run_program

if __name__ == "__main__":
    run_program("generate")
