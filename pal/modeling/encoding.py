"""Encoding many rows with little padding: dialogues and personas sorted by length, each apart.

A persona is encoded once, however many rows share it. Where the model has a fast encoder, texts of
all lengths are encoded one behind the other, and grouped afterwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from pal.data.batches import lengths_mask, plan_batches
from pal.decoding.sending import send
from pal.decoding.states import EncodedInputs
from pal.modeling.fusion import pad_to

# Encoder positions of one call: enough for full speed, and no more, so that little is padding.
CPU_TOKENS, GPU_TOKENS = 1024, 65536

# Lengths are padded to a multiple of this on a CPU, whose kernels round the last few positions of
# other lengths differently. So a row's states are the same bits in every batch.
MULTIPLE = 16

Inputs = Mapping[str, Sequence[int]]


def input_length(inputs: Inputs) -> int:
    """Return the encoder positions that decoding holds for a row: its longer input's."""
    return max(len(inputs["input_ids"]), len(inputs.get("persona_input_ids", ())))


def encode_sorted(
    model: Any, rows: Sequence[Inputs], tokens: int | None = None
) -> Iterator[tuple[list[int], EncodedInputs]]:
    """Encode rows in groups of similar length; yields indices into ``rows`` and their states.

    On a CPU a row's states are the same bits whatever rows come with it. A fusion that pads both
    inputs to one length gets them so, and its states depend on the group.

    Args:
        model: the response model.
        rows: ``input_ids`` and, for a fusing model, ``persona_input_ids``.
        tokens: encoder positions of one call, at most (a longer row is a call of its own); by
            default what the device wants.
    """
    tokens = tokens or (CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS)
    fusion = model.fusion
    if fusion is not None and fusion.common_length:
        for group in plan_batches([input_length(row) for row in rows], max_tokens=tokens):
            yield group, model.encode(**collate(model, [rows[index] for index in group]))
        return
    if fusion is None:
        for group, states, mask in _encode_all(model, [row["input_ids"] for row in rows], tokens):
            yield group, EncodedInputs(states, mask, states, mask)
        return
    keys = [tuple(row["persona_input_ids"]) for row in rows]
    distinct = list(dict.fromkeys(keys))
    personas: dict[tuple[int, ...], Tensor] = {}
    for group, states, _ in _encode_all(model, distinct, tokens):
        for index, state in zip(group, states, strict=True):
            personas[distinct[index]] = state[: len(distinct[index])]
    for group, dialogue, mask in _encode_all(model, [row["input_ids"] for row in rows], tokens):
        chosen = [keys[index] for index in group]
        persona = pad_sequence([personas[key] for key in chosen], batch_first=True)
        persona = pad_to(persona, _padded(persona.shape[1], model))
        persona_mask = pad_to(send(lengths_mask(chosen), model.device), persona.shape[1])
        fused, fused_mask = fusion(dialogue, mask, persona, persona_mask)
        yield group, EncodedInputs(fused, fused_mask, dialogue, mask)


def _encode_all(
    model: Any, texts: Sequence[Sequence[int]], tokens: int
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield indices into ``texts``, their states [B, L, d] and mask [B, L], in groups."""
    encoder = model.fast_encoder()
    states = encoder(texts) if encoder else None
    for group in _plan([len(text) for text in texts], tokens, model):
        chosen = [texts[index] for index in group]
        if states is None:
            yield group, *_encode(model, chosen)
            continue
        padded = pad_sequence([states[index] for index in group], batch_first=True)
        mask = lengths_mask(chosen)
        length = _padded(padded.shape[1], model)
        yield group, pad_to(padded, length), pad_to(mask, length)


def _padded(length: int, model: Any) -> int:
    """Return what a length is padded to on the model's device."""
    return -(-length // MULTIPLE) * MULTIPLE if model.device.type == "cpu" else length


def _plan(lengths: Sequence[int], tokens: int, model: Any) -> list[list[int]]:
    """Group rows of similar length; on a CPU those alone that are padded to the same length."""
    padded = [_padded(length, model) for length in lengths]
    batches = plan_batches(padded, max_tokens=tokens)
    if model.device.type != "cpu":
        return batches
    return [list(g) for batch in batches for _, g in groupby(batch, key=padded.__getitem__)]


def collate(model: Any, rows: Sequence[Inputs]) -> dict[str, Tensor]:
    """Return the padded encoder inputs of some rows, on the model's device."""
    inputs = [{name: row[name] for name in row if name != "labels"} for row in rows]
    batch = model.make_collator()(inputs)
    return {name: send(tensor, model.device) for name, tensor in batch.items()}


def _encode(model: Any, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return encoder states [B, L, d] and mask [B, L] of token ids, padded to :data:`MULTIPLE`."""
    batch = collate(model, [{"input_ids": row} for row in rows])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    length = _padded(ids.shape[1], model)
    length = min(length, getattr(model.config, "max_position_embeddings", length))
    missing = length - ids.shape[1]
    ids = F.pad(ids, (0, missing), value=model.config.pad_token_id)
    mask = F.pad(mask, (0, missing))
    return model.encode_text(ids, mask), mask
