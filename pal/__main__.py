"""``python -m pal`` is ``pal``."""

from pal.cli import run

if __name__ == "__main__":
    run()
