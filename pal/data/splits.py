"""Which dialogues are for training, validation and test."""

from pathlib import Path
from typing import Any, Literal

from pal.data.esconv import load_esconv, split_dialogues


def load_split(
    source: str,
    split: str | None,
    *,
    mode: Literal["published", "seeded"] = "published",
    seed: int = 13,
    requests: bool = False,
) -> Any:
    """Load one split of a corpus as a ``datasets.Dataset``.

    Mode ``published`` takes a folder's or hub id's own splits; a single file has none, so a split
    of it is the seeded one, as in mode ``seeded`` (7:2:1 by dialogue, PAL paper, section 4.3).

    Args:
        source: file, folder or hub id, see :func:`pal.load_esconv`.
        split: ``train``, ``validation``, ``test``, or None for all dialogues.
        mode: as above.
        seed: seed of the seeded split.
        requests: accept dialogues that only wait for a response.
    """
    if split is None or (mode == "published" and not Path(source).is_file()):
        return load_esconv(source, split, requests=requests)
    return split_dialogues(load_esconv(source, requests=requests), seed=seed)[split]
