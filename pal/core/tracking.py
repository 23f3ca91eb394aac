"""Experiment tracking through Weights & Biases: numbers and settings only, unless texts are asked.

Without an account's key on this machine nothing leaves it: runs are written offline.
"""

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pal.core.errors import first_line
from pal.core.runs import redact
from pal.core.schema import Settings

logger = logging.getLogger(__name__)

# Texts a logged table may hold of each record.
TEXTS = ("id", "strategy", "response", "reference_strategy", "reference", "persona")


def stay_offline_without_key() -> None:
    """Tell wandb to write its runs to disk when this machine has no account to report to."""
    if not _has_key():
        os.environ.setdefault("WANDB_MODE", "offline")


def track(
    settings: Settings,
    name: str,
    values: Mapping[str, float],
    records: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Log one system's scores as one run; nothing unless ``tracking.wandb`` is set.

    A tracker that fails is warned about and loses nothing: results lie on this machine.

    Args:
        settings: their ``tracking`` block decides; they are logged with the run, paths included.
        name: the run's name.
        values: metric key → value.
        records: predictions, logged as a table only with ``tracking.texts``.
    """
    if not settings.tracking.wandb:
        return
    import wandb

    stay_offline_without_key()
    try:
        with wandb.init(
            project=settings.tracking.project, name=name, job_type="score",
            config=redact(settings.model_dump()),
            settings=wandb.Settings(console="off", silent=True),
        ) as run:  # fmt: skip
            run.summary.update(dict(values))
            if settings.tracking.texts and records is not None:
                rows = [[_text(record.get(key)) for key in TEXTS] for record in records]
                run.log({"responses": wandb.Table(columns=list(TEXTS), data=rows)})
    except (wandb.Error, OSError, RuntimeError) as error:
        logger.warning("%s was not tracked: wandb says %s", name, first_line(error))


def _text(value: Any) -> str | None:
    return " | ".join(value) if isinstance(value, list) else value


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
