"""The process that results come from: environment, number formats, messages.

Example:
    >>> import pal
    >>> pal.configure_runtime()  # before the first product: results then equal the command line's
"""

import logging
import os
import sys
import warnings

from pal.core.errors import without_credentials

# Set unless the user has; read by libraries when they are first used.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Matrix products on a CPU then give the same bits whatever the number of threads, so that a
    # job on two processes equals the same job on one.
    "MKL_CBWR": "AUTO,STRICT",
}


def configure_runtime() -> None:
    """Give this process the determinism that the command line has.

    Call it before torch multiplies anything; later it warns, since the library that multiplies
    reads its settings once.
    """
    late = "torch" in sys.modules and "MKL_CBWR" not in os.environ
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if late:
        warnings.warn(
            "configure_runtime() came after torch was imported; if a product was computed already, "
            "results can differ from the command line's in the last digits",
            stacklevel=2,
        )


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


def show_messages() -> None:
    """Let the project's own messages through, on the first process, to standard error."""
    logger = logging.getLogger("pal")
    for handler in [h for h in logger.handlers if type(h) is logging.StreamHandler]:
        logger.removeHandler(handler)  # it holds the stream of an earlier call
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
