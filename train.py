"""Train PAL or the extractor. ``train.py --config FILE key=value …`` is ``pal train``."""

from pal.cli import run_program

if __name__ == "__main__":
    run_program("train")
