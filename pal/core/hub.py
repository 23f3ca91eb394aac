"""The model hub, where there is no network: what was fetched before is used, without waiting.

The hub's client tries every file six times, half a minute in all, before it looks at what lies on
this machine already. One question asked beforehand spares that.
"""

import logging
import os
from functools import cache

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0  # within which a hub's address must take a connection


def go_offline_without_network(source: str) -> None:
    """Where a hub id is to be loaded and the hub has no connection, use what is on this machine.

    With a connection nothing changes, nor for a folder. The answer holds for the whole process.

    Args:
        source: folder or hub id.
    """
    from huggingface_hub import constants

    if os.path.exists(source) or constants.HF_HUB_OFFLINE or is_reachable(constants.ENDPOINT):
        return
    logger.warning(
        "no connection to %s: only what was downloaded before is used", constants.ENDPOINT
    )
    constants.HF_HUB_OFFLINE = True  # the libraries ask for it before every request


def is_out_of_reach(name: str) -> bool:
    """Whether a model of the hub cannot be had: HF_HUB_OFFLINE is set, and nothing of it is here.

    Args:
        name: hub id.
    """
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE:
        return False
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=name, repo_type="model")
    return not os.path.isdir(os.path.join(constants.HF_HUB_CACHE, folder))


@cache
def is_reachable(address: str) -> bool:
    """Whether an address takes connections; whatever it then answers, it is there."""
    from huggingface_hub import get_session

    try:
        get_session().head(address, timeout=CONNECT_SECONDS)
    except Exception as error:  # of the client's library, which changes its name now and then
        return "Connect" not in type(error).__name__
    return True
