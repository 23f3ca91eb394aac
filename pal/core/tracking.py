"""Experiment tracking through Weights & Biases: numbers and settings, and texts only on request.

Without an account key on this machine, runs are written offline and nothing is uploaded.
"""

import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pal.core.errors import first_line
from pal.core.settings import INERT, Section

logger = logging.getLogger(__name__)

# Fields of a record whose texts a logged table may hold.
TEXTS = ("id", "strategy", "response", "reference_strategy", "reference", "persona")


class TrackingSettings(Section):
    """Experiment tracking of scores; training has ``training.report_to``.

    Attributes:
        wandb: log to Weights & Biases, offline when no key is set.
        project: name of the W&B project.
        texts: log responses too; otherwise only numbers and settings are logged.
    """

    wandb: Annotated[bool, INERT] = False
    project: Annotated[str, INERT] = "pal"
    texts: Annotated[bool, INERT] = False


def stay_offline_without_key() -> None:
    """Make wandb write its runs to disk when this machine has no account key."""
    if not _has_key():
        os.environ.setdefault("WANDB_MODE", "offline")


def track(
    tracking: TrackingSettings,
    name: str,
    values: Mapping[str, float],
    records: Sequence[Mapping[str, Any]] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Log the scores of one system as one run, if ``tracking.wandb`` is set.

    A failing tracker causes a warning and loses no result: results lie on this machine.

    Args:
        tracking: the section of settings.
        name: the run's name.
        values: metric key → value.
        records: predictions, logged as a table with ``tracking.texts`` only.
        settings: dumped settings that the scores were made with; secrets are removed.
    """
    if not tracking.wandb:
        return
    import wandb

    from pal.core.job import redact

    stay_offline_without_key()
    try:
        with wandb.init(
            project=tracking.project, name=name, job_type="score",
            config=redact(dict(settings or {})),
            settings=wandb.Settings(console="off", silent=True),
        ) as run:  # fmt: skip
            run.summary.update(dict(values))
            if tracking.texts and records is not None:
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
