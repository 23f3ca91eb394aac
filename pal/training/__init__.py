"""Training, for every task: what it begins with, the loop, the folder that it writes, resuming.

Example:
    >>> from pal.config import load_settings
    >>> from pal.training import train
    >>> train(load_settings("quickstart", ["data.train=bundled:esconv", "output_dir=runs/mine"]))
"""

from importlib import import_module
from typing import Any

__all__ = ["train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("pal.commands.train").train
    raise AttributeError(f"module 'pal.training' has no attribute {name!r}")
