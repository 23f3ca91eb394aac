"""Encoding many rows with little padding: dialogues and personas sorted by length, each apart.

A persona is encoded once, however many rows share it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pal.data.batches import Collator, lengths_mask, plan_batches
from pal.decoding.states import EncodedInputs

# Encoder positions of one call: enough for full speed, and no more, so that little is padding.
CPU_TOKENS, GPU_TOKENS = 1024, 65536

Inputs = Mapping[str, Sequence[int]]


def input_length(inputs: Inputs) -> int:
    """Return the encoder positions that decoding holds for a row: its longer input's."""
    return max(len(inputs["input_ids"]), len(inputs.get("persona_input_ids", ())))


def encode_sorted(
    model: Any, rows: Sequence[Inputs], tokens: int | None = None
) -> Iterator[tuple[list[int], EncodedInputs]]:
    """Encode rows in groups of similar length; yields indices into ``rows`` and their states.

    A fusion that pads both inputs to one length gets them so, in groups as well.

    Args:
        model: the response model.
        rows: ``input_ids`` and, for a fusing model, ``persona_input_ids``.
        tokens: encoder positions of one call, at most (a longer row is a call of its own); by
            default what the device wants.
    """
    tokens = tokens or (CPU_TOKENS if model.device.type == "cpu" else GPU_TOKENS)
    fusion = model.fusion
    if fusion is None or fusion.common_length:
        for group in plan_batches([input_length(row) for row in rows], max_tokens=tokens):
            yield group, model.encode(**collate(model, [rows[index] for index in group]))
        return
    keys = [tuple(row["persona_input_ids"]) for row in rows]
    distinct = list(dict.fromkeys(keys))
    personas: dict[tuple[int, ...], Tensor] = {}
    for group in plan_batches([len(key) for key in distinct], max_tokens=tokens):
        states = _encode(model, [distinct[index] for index in group])[0]
        for index, state in zip(group, states, strict=True):
            personas[distinct[index]] = state[: len(distinct[index])]
    for group in plan_batches([len(row["input_ids"]) for row in rows], max_tokens=tokens):
        dialogue, mask = _encode(model, [rows[index]["input_ids"] for index in group])
        chosen = [keys[index] for index in group]
        persona = pad_sequence([personas[key] for key in chosen], batch_first=True)
        persona_mask = lengths_mask(chosen).to(model.device)
        fused, fused_mask = fusion(dialogue, mask, persona, persona_mask)
        yield group, EncodedInputs(fused, fused_mask, dialogue, mask)


def collate(model: Any, rows: Sequence[Inputs]) -> dict[str, Tensor]:
    """Return the padded encoder inputs of some rows, on the model's device."""
    config = model.config
    collator = Collator(
        pad_token_id=config.pad_token_id, decoder_start_token_id=config.decoder_start_token_id
    )
    batch = collator([{name: row[name] for name in row if name != "labels"} for row in rows])
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def _encode(model: Any, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return encoder states [B, L, d] and mask [B, L] of token ids."""
    batch = collate(model, [{"input_ids": row} for row in rows])
    return model.encode_text(**batch), batch["attention_mask"]
