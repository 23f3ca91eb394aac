"""Score predictions and/or a model. ``eval.py --config FILE key=value …`` is ``pal eval``."""

from pal.cli import run_program

if __name__ == "__main__":
    run_program("eval")
