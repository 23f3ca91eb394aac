"""PAL: persona-augmented emotional support dialogue.

Names are imported when first used, so that ``import pal`` and ``pal --help`` stay instant.
"""

from pal.core import interrupts

if interrupts.is_program():
    interrupts.tell_in_one_line()

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pal.modeling.auto import register_when_used

try:
    __version__ = version("pal-esc")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

_PUBLIC = {
    "load": "pal.conversation.session",
    "load_esconv": "pal.data.esconv",
    "load_personachat": "pal.data.personachat",
    "PalConfig": "pal.modeling.configuration",
    "PalForConditionalGeneration": "pal.modeling.backbones.blenderbot_small",
    "configure_runtime": "pal.core.runtime",
    "load_settings": "pal.config",
}

__all__ = [
    "PalConfig", "PalForConditionalGeneration", "configure_runtime", "load",
    "load_esconv", "load_personachat", "load_settings",
]  # fmt: skip

register_when_used()


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'pal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
