"""Batches of samples: padding, and a plan of batches made from the whole input.

A plan depends on the lengths alone. Its batches are the unit of resuming and of sharding, so that
tensor shapes, and with them rounding, are the same however a job is run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def plan_batches(
    lengths: Sequence[int], *, max_tokens: int, max_rows: int | None = None
) -> list[list[int]]:
    """Group indices of similar length so that no batch holds more than ``max_tokens`` positions.

    The longest items come first, ties in order of index. A single item longer than ``max_tokens``
    is its own batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        batch = batches[-1] if batches else None
        if (
            batch is None
            or len(batch) == max_rows
            or (len(batch) + 1) * lengths[batch[0]] > max_tokens
        ):
            batches.append(batch := [])
        batch.append(index)
    return batches


def consecutive_batches(
    lengths: Sequence[int], *, max_tokens: int, max_rows: int
) -> list[list[int]]:
    """Group indices in their order so that no batch holds more than ``max_tokens`` positions.

    For rows that share what stands before them: neighbours are of one dialogue.
    """
    batches: list[list[int]] = []
    held = 0
    for index, length in enumerate(lengths):
        if not batches or len(batches[-1]) == max_rows or held + length > max_tokens:
            batches.append([])
            held = 0
        batches[-1].append(index)
        held += length
    return batches


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Pad rows on the right to the longest, [B, L]."""
    padded = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = torch.as_tensor(row, dtype=torch.long)
    return padded


def lengths_mask(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the attention mask of rows padded on the right, 1 = keep, [B, L]."""
    lengths = torch.tensor([len(row) for row in rows])
    return (torch.arange(int(lengths.max()))[None] < lengths[:, None]).long()


class Collator:
    """Pads encoded samples to a batch of tensors, named as the arguments of ``forward``.

    Labels are padded with −100; ``decoder_input_ids`` are the start token and the labels shifted
    right by one, with padding in the place of −100.
    """

    def __init__(self, *, pad_token_id: int, decoder_start_token_id: int):
        self.pad_token_id = pad_token_id
        self.decoder_start_token_id = decoder_start_token_id

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the batch of these samples."""
        batch = {}
        for prefix in ("", "persona_"):
            if f"{prefix}input_ids" in samples[0]:
                rows = [sample[f"{prefix}input_ids"] for sample in samples]
                batch[f"{prefix}input_ids"] = pad(rows, self.pad_token_id)
                batch[f"{prefix}attention_mask"] = lengths_mask(rows)
        if "labels" in samples[0]:
            labels = [sample["labels"] for sample in samples]
            batch["labels"] = pad(labels, -100)
            shifted = [[self.decoder_start_token_id, *row[:-1]] for row in labels]
            inputs = pad(shifted, self.pad_token_id)
            batch["decoder_input_ids"] = inputs.masked_fill_(inputs == -100, self.pad_token_id)
        return batch
