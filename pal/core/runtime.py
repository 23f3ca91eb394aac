"""Configuration of the process: environment, number formats, messages.

Example:
    >>> import pal
    >>> pal.configure_runtime()  # before the first matrix product: results equal the command line
"""

import logging
import os
import sys
import warnings
from typing import Any

from pal.core.errors import one_line, without_credentials

# Set unless the user has set them; libraries read them when they are first used.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Matrix products on a CPU then give the same bits for any number of threads, so that a job
    # on two processes equals the same job on one.
    "MKL_CBWR": "AUTO,STRICT",
}


def configure_runtime() -> None:
    """Make this process as deterministic as the command line.

    Call it before torch computes a matrix product. A later call warns, since the math library
    reads its settings once.
    """
    late = "torch" in sys.modules and "MKL_CBWR" not in os.environ
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if late:
        warnings.warn(
            "configure_runtime() was called after torch was imported; if a product came before, "
            "results can differ from the command line's in the last digits",
            stacklevel=2,
        )


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        """Make a warning or error one line; what a step reports may have several."""
        text = super().formatMessage(record)
        return one_line(text) if record.levelno >= logging.WARNING else text

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))


class _ToStandardError(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what standard error is at the moment; a notebook or a test may have closed another.

    A handler that cannot write prints a traceback instead, with what the message was made of.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:  # type: ignore[override]
        """Standard error."""
        return sys.stderr


def show_messages() -> None:
    """Write the project's messages to standard error, on the first process only."""
    logger = logging.getLogger("pal")
    if not any(isinstance(handler, _ToStandardError) for handler in logger.handlers):
        handler = _ToStandardError()
        handler.setFormatter(_Formatter())
        logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
