"""Decoder-only models: dialogues as training sequences, packed into rows, and their losses.

A dialogue is one sequence, in which every supporter turn is a target. Rows hold several dialogues
that do not see each other, where the model can be told so by its position ids.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pal.core.errors import ConfigError
from pal.data.batches import pad
from pal.data.chat import ChatEncoder, ChatFormat, Turn
from pal.data.strategies import ESCONV
from pal.decoding.groups import only_at
from pal.modeling.language import LanguageEntries, is_adapted
from pal.modeling.settings import ArchitectureSettings

logger = logging.getLogger(__name__)


def chat_encoder_of(tokenizer: Any, chosen: ArchitectureSettings, *, persona: bool) -> ChatEncoder:
    """Return the text side that training settings ask for.

    Raises:
        ConfigError: a template that the base does not have.
        CheckpointError: a tokenizer that cannot write strategies.
    """
    where = f"architecture.base={chosen.base}"
    template = chosen.template or "chat"
    if chosen.template is None and not getattr(tokenizer, "chat_template", None):
        template = "plain"
        logger.info(
            "%s has no chat template; turns are written as 'user: …' and 'supporter: …' "
            "(architecture.template=plain)", where,
        )  # fmt: skip
    return ChatEncoder(
        tokenizer, ChatFormat.of(tokenizer, template, where), persona=persona,
        max_context_tokens=chosen.max_context_tokens, max_target_tokens=chosen.max_target_tokens,
    )  # fmt: skip


def language_mode(chosen: ArchitectureSettings) -> str:
    """Return the persona mode of a decoder-only model.

    Raises:
        ConfigError: it is ``fusion``.
    """
    if chosen.persona_mode == "fusion":
        raise ConfigError(
            "architecture.persona_mode=fusion: a decoder-only model has no encoder states to fuse; "
            "give prompt (notes in the text, which the contrast is made of) or none"
        )
    return chosen.persona_mode or "prompt"


def sees_notes(dialogue: str, seed: int, dropout: float) -> bool:
    """Whether a dialogue keeps its notes in training: a function of its id and the seed."""
    digest = hashlib.blake2b(f"{seed}\0{dialogue}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 >= dropout


def dialogue_windows(
    rows: Sequence[Mapping[str, Any]], encoder: ChatEncoder, *, seed: int, dropout: float
) -> list[dict[str, list[int]]]:
    """Return dialogues as training sequences.

    Args:
        rows: of :func:`pal.data.load_esconv`.
        encoder: their text side.
        seed: decides which dialogues go without notes.
        dropout: share of these.
    """
    found = []
    for row in rows:
        turns: Sequence[Turn] = row["dialog"]
        persona = encoder.persona and sees_notes(str(row["id"]), seed, dropout)
        found += encoder.windows(turns, persona=persona)
    return found


def put_entries(model: Any, encoder: ChatEncoder, task: str, mode: str, gguf: str | None) -> None:
    """Write into a model's configuration how it is trained here."""
    LanguageEntries(
        pal_task=task, persona_mode=mode,
        chat_format=dict(vars(encoder.form)),
        max_context_tokens=encoder.max_context_tokens,
        max_target_tokens=encoder.max_target_tokens,
        alpha=list(ESCONV.alpha), base_gguf_file=gguf if is_adapted(model) else None,
    ).put_into(model.config)  # fmt: skip


# ----------------------------------------------------------------------------- batches


class PackingCollator:
    """Puts sequences into rows as long as the longest of them, and tells them apart.

    Position ids begin again with each sequence, which the library's attention masks follow. For a
    model that does not, every row is one sequence.

    Args:
        pad_token_id: fills rows.
        packs: whether the model keeps sequences of a row apart, :func:`keeps_apart`.
    """

    def __init__(self, *, pad_token_id: int, packs: bool):
        self.pad_token_id, self.packs = pad_token_id, packs

    def one_a_row(self) -> "PackingCollator":
        """Return a collator that puts each sequence into a row of its own."""
        return PackingCollator(pad_token_id=self.pad_token_id, packs=False)

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return ``input_ids``, ``position_ids`` and ``labels``, [rows, L].

        Without packing the rows stand in the order of the samples.
        """
        order = list(samples)
        if self.packs:
            order.sort(key=lambda sample: -len(sample["input_ids"]))
        longest = max(len(sample["input_ids"]) for sample in order)
        rows: list[list[Mapping[str, Any]]] = []
        for sample in order:
            size = len(sample["input_ids"])
            for row in rows if self.packs else ():
                if sum(len(one["input_ids"]) for one in row) + size <= longest:
                    row.append(sample)
                    break
            else:
                rows.append([sample])
        ids = [[t for one in row for t in one["input_ids"]] for row in rows]
        labels = [[t for one in row for t in one["labels"]] for row in rows]
        positions = [
            [p for one in row for p in range(len(one["input_ids"]))]
            + list(range(longest - sum(len(one["input_ids"]) for one in row)))
            for row in rows
        ]
        return {
            "input_ids": pad(ids, self.pad_token_id),
            "position_ids": torch.tensor(positions),
            "labels": pad(labels, -100),
        }


@torch.no_grad()
def keeps_apart(model: Any) -> bool:
    """Whether sequences of one row do not see each other when position ids begin again."""
    training = model.training
    model.eval()
    size = min(model.get_input_embeddings().num_embeddings, 100)
    one = torch.arange(1, 6, device=model.device) % size
    two = torch.arange(7, 10, device=model.device) % size
    both = torch.cat([one, two])[None]
    places = torch.cat([torch.arange(5), torch.arange(3)])[None].to(model.device)
    try:
        packed = model(input_ids=both, position_ids=places, use_cache=False).logits[0, 5:]
        alone = model(input_ids=two[None], use_cache=False).logits[0]
    except TypeError:  # a model without position ids
        return False
    finally:
        model.train(training)
    return bool(torch.allclose(packed.float(), alone.float(), atol=1e-2, rtol=1e-2))


# ----------------------------------------------------------------------------- losses


def language_loss(
    model: Any, inputs: Mapping[str, Tensor], num_items_in_batch: Any = None
) -> tuple[Tensor, Tensor]:
    """Return the mean loss over target tokens, nats, and what validation needs of every row.

    Hidden states that predict no target are never projected to the vocabulary.

    Args:
        model: to train, perhaps wrapped for several processes.
        inputs: a batch of :class:`PackingCollator`.
        num_items_in_batch: target tokens of the whole step; those of this batch by default.

    Returns:
        The loss, and [rows, 3]: summed nats, target tokens, 0.
    """
    labels = inputs["labels"]
    rows, columns = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    inner = getattr(model, "module", model)
    with only_at(inner, rows, columns):
        output = model(
            input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False
        )
    nats = F.cross_entropy(output.logits[0].float(), labels[rows, columns + 1], reduction="none")
    count = len(nats) if num_items_in_batch is None else num_items_in_batch
    summary = nats.new_zeros(len(labels), 3)
    summary[:, 0].index_add_(0, rows, nats.detach())
    summary[:, 1].index_add_(0, rows, torch.ones_like(nats))
    return nats.sum() / count, summary
