"""Joining a Ray cluster: the one that RAY_ADDRESS names, or one of this machine."""

import logging
import os
import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pal.core.errors import ConfigError, first_line

logger = logging.getLogger(__name__)


def require_ray(asked: str) -> None:
    """Make sure that Ray is installed.

    Args:
        asked: the setting that needs it, as ``key=value``.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("ray") is None:
        raise ConfigError(f"{asked} needs the package ray; pip install 'pal-esc[ray]'")


def join_cluster(asked: str) -> bool:
    """Join the cluster of RAY_ADDRESS, or one of this machine; return whether this call did it.

    Args:
        asked: the setting that asks for it, as ``key=value``, for messages.

    Raises:
        ConfigError: no cluster answers.
    """
    import ray

    if ray.is_initialized():
        return False
    where = os.environ.get("RAY_ADDRESS", "")
    remedy = "start one with `ray start --head`, or correct or unset RAY_ADDRESS"
    refusal = _no_answer(where)  # the library tries for minutes
    if refusal is not None:
        raise ConfigError(
            f"{asked}: no cluster answers at RAY_ADDRESS={where} ({refusal}); {remedy}"
        )
    gone = not where and _no_answer(_last_cluster()) is not None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        ray.init("local" if gone else None, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # whatever the library finds wrong
        raise ConfigError(
            f"{asked}: the cluster cannot be joined ({first_line(error)}); {remedy}"
        ) from error
    return True


def _last_cluster() -> str:
    """Return the address of the cluster that was last started on this machine, or nothing.

    One that was killed leaves its address.
    """
    try:
        path = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _no_answer(address: str) -> str | None:
    """Return why nobody listens at an address; None where somebody does, or none can be tried."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            return first_line(error)
    return None


def nodes_alive() -> list[dict[str, float]]:
    """Return the resources of every node of the cluster that this process joined."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def warn_of_waiting(
    nodes: Sequence[dict[str, float]], needs: dict[str, Any], who: str, key: str
) -> bool:
    """Warn where no node has what is asked for together, and return whether none has.

    Args:
        nodes: their resources.
        needs: GPUs, CPU cores and bytes of memory, in the library's words.
        who: what asks.
        key: the setting that says how much.
    """
    if any(all(node.get(k, 0) >= v for k, v in needs.items()) for node in nodes):
        return False
    memory = needs["memory"]
    logger.warning(
        "no node of the cluster has %g GPUs, %d CPU cores%s together, which %s asks for (%s): it "
        "waits until one joins", needs["GPU"], needs["CPU"],
        f" and {memory / 1e9:g} GB" if memory else "", who, key,
    )  # fmt: skip
    return True
