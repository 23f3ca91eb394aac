"""The models that scores need: which are wanted, loaded once, and what all of them share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# Number of texts from which on a model shows its progress.
_SHOW_PROGRESS = 500


def load_score_models(
    names: Iterable[str] | None,
    *,
    bertscore: str | None,
    bertscore_layer: int | None,
    nli: str | None,
    present: Iterable[str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Load the encoder of BERTScore and the model of inference, where they are named and needed.

    Args:
        names: requested metrics; all if None.
        bertscore: encoder of BERTScore; None leaves BERTScore out.
        bertscore_layer: its layer; the last if None.
        nli: model of inference; None leaves its scores out.
        present: fields of :class:`pal.metrics.Predictions` that there will be.

    Returns:
        (fields of ``Predictions``, reasons why others are missing).

    Raises:
        CheckpointError: a named model cannot be used.
    """
    from pal.metrics.bertscore import load_token_encoder
    from pal.metrics.persona_nli import load_nli
    from pal.metrics.table import choose_metrics

    there = set(present)
    wanted = {
        need for metric, _ in choose_metrics(names) for need in metric.needs
        if set(metric.needs) - there <= {need}
    }  # fmt: skip
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if bertscore is None:
        reasons["token_encoder"] = "metrics.bertscore is null"
    elif "token_encoder" in wanted:
        found["token_encoder"] = load_token_encoder(bertscore, bertscore_layer)
    if nli is None:
        reasons["nli"] = "metrics.nli is null"
    elif "nli" in wanted:
        found["nli"] = load_nli(nli)
    elif "personas" not in there:
        reasons["nli"] = "no sample has a persona"
    return found, reasons


def given_texts(records: Sequence[Mapping[str, Any]] | None) -> set[str]:
    """Return which texts records have, by their names in :class:`pal.metrics.Predictions`."""
    if not records:
        return set()
    found = {"responses"}
    if all(record.get("reference") is not None for record in records):
        found.add("references")
    if any(record.get("persona") for record in records):
        found.add("personas")
    return found


def best_device(device: str | None = None) -> str:
    """Return the device that was asked for, else the best there is."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def longest_input(tokenizer: Any, config: Any) -> int:
    """Return the number of tokens that a model can read at most."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(tokenizer.model_max_length, positions, 1 << 16))


def by_length(lengths: Sequence[int], size: int, label: str = "") -> Iterator[list[int]]:
    """Yield the numbers of texts in batches of similar lengths, so that little is padding.

    Args:
        lengths: length of each text.
        size: texts a batch.
        label: what the progress bar says, if there are many texts; no bar if empty.
    """
    from tqdm.auto import tqdm

    order = np.argsort(lengths, kind="stable")
    hide = not label or len(order) < _SHOW_PROGRESS
    with tqdm(total=len(order), desc=label, unit="text", disable=hide) as bar:
        for start in range(0, len(order), size):
            yield order[start : start + size].tolist()
            bar.update(len(order[start : start + size]))
